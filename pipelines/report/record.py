"""Read what the warehouse records about its nights: leases, manifests, and the commits of published lists."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from pipelines.publish.night_state import Commit, NightState, derive_state, parse_commit
from pipelines.report.tables import ReportError, read_history, read_rows, table_uri
from pipelines.schemas import DS, RUN_ID
from pipelines.settings.settings import Settings
from pipelines.steps import NIGHT_STEPS, Job
from pipelines.store.disproved import add_descendants
from pipelines.store.manifests import EvaluationManifest, Manifest, ScoringPlanManifest

M = TypeVar("M", bound=Manifest)

# The jobs whose rows of `runs` say what became of a night.
OF_A_NIGHT = (
    *NIGHT_STEPS, Job.SCORING_PLAN, Job.VERIFY_FULL, Job.DISPROVED, Job.FAILED_AUDIT, Job.PLAN_NIGHT,
    Job.ROLL_BACK, Job.EVALUATE_MODEL,
)  # fmt: skip


class StoredManifest(NamedTuple):
    """A row of `runs`, whose manifest is read only when somebody asks for it."""

    seconds: float
    text: str


@dataclass(frozen=True)
class Record:
    """What the warehouse records about its nights."""

    uri: str  # where the table `runs` lies
    rows: Mapping[str, Mapping[str, StoredManifest]]  # by run and by job
    keys: Mapping[str, Mapping[int, str]]  # the run key by the epoch of each run, by night
    states: Mapping[str, NightState]  # by night; only nights that were ever published
    commit_times: Mapping[int, str]  # when each version of `recommendations` was committed

    @property
    def nights(self) -> list[str]:
        """All nights of which a run took the lease or published lists, the oldest first."""
        return sorted({*self.keys, *self.states})

    def find(self, run_id: str | None, kind: type[M]) -> M | None:
        """Find a manifest of a run; return None if the run has not recorded it.

        Raises:
            ReportError: the manifest is not one that this version can read.
        """
        stored = self.rows.get(run_id or "", {}).get(kind.job)
        if stored is None:
            return None
        try:
            return kind.model_validate(json.loads(stored.text))
        except (ValueError, ValidationError) as error:
            raise ReportError(
                f"the table {self.uri}: the manifest of run {run_id}, job {kind.job}, can't be read "
                f"({type(error).__name__}); restore the row from an earlier version of the table"
            ) from error

    def evaluations(self, night: str) -> dict[str, EvaluationManifest]:
        """Return the offline evaluations as of a night by the names of their runs."""
        mine = sorted(run_id for run_id in self.rows if run_id.startswith(f"{night}.evaluate-"))
        found = {run_id: self.find(run_id, EvaluationManifest) for run_id in mine}
        return {run_id: each for run_id, each in found.items() if each}

    def scoring_runs(self, night: str) -> list[str]:
        """Return the runs that took the night to score it, the oldest first; rollbacks are left out."""
        found = [f"{night}.{epoch}" for epoch in sorted(self.keys.get(night, {}))]
        return [run_id for run_id in found if self.rows.get(run_id, {}).keys() != {Job.ROLL_BACK}]

    def key_of(self, run_id: str) -> str:
        """Return the run key of a run, or an empty text if no lease names it."""
        night, _, epoch = run_id.partition(".")
        return self.keys.get(night, {}).get(int(epoch), "") if epoch.isdigit() else ""


def read_record(settings: Settings) -> Record:
    """Read the record of all nights of a warehouse."""
    rows: dict[str, dict[str, StoredManifest]] = {}
    wanted = [("job", "in", [str(job) for job in OF_A_NIGHT])]
    for row in read_rows(settings, "runs", [RUN_ID, "job", "seconds", "manifest"], wanted):
        rows.setdefault(row[RUN_ID], {})[row["job"]] = StoredManifest(row["seconds"] or 0.0, row["manifest"])
    keys: dict[str, dict[int, str]] = {}
    for row in read_rows(settings, "leases", [DS, "epoch", "run_key"]):
        keys.setdefault(str(row[DS]), {})[row["epoch"]] = row["run_key"]
    history = read_history(settings, "recommendations")
    times = {int(each["version"]): _show_time(each["timestamp"]) for each in history if each.get("timestamp")}
    record = Record(table_uri(settings, "runs"), rows, keys, {}, times)
    tags = [(int(each["version"]), str(each["userMetadata"])) for each in history if each.get("userMetadata")]
    return Record(record.uri, rows, keys, _derive_states(record, tags), times)


def _derive_states(record: Record, tags: list[tuple[int, str]]) -> dict[str, NightState]:
    """Derive the state of each night from the commits and from the runs that a comparison has disproved."""
    commits: dict[str, list[Commit]] = {}
    for version, text in tags:
        if found := parse_commit(version, text):
            commits.setdefault(found[0], []).append(found[1])
    plans = {run_id: record.find(run_id, ScoringPlanManifest) for run_id in record.rows}
    disproved = [run_id for run_id, jobs in record.rows.items() if Job.DISPROVED in jobs]
    false = add_descendants(disproved, {run_id: plan for run_id, plan in plans.items() if plan})
    recorded: dict[str, set[str]] = {}
    for run_id, jobs in record.rows.items():
        if Job.PUBLISH_RECOMMENDATIONS in jobs:
            recorded.setdefault(run_id.partition(".")[0], set()).add(run_id)
    return {
        night: derive_state(night, commits.get(night, ()), false, recorded.get(night, ()))
        for night in sorted({*commits, *recorded})
    }


def _show_time(milliseconds: int) -> str:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
