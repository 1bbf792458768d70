"""Say how a warehouse is this morning: its last nights, its champions, its size, and what is wrong."""

from __future__ import annotations

import datetime as dt

from pipelines.ingest.drop_names import local_days
from pipelines.report.facts import Champion, Export, Status, TableSize
from pipelines.report.night_report import report_night
from pipelines.report.problems import find_problems
from pipelines.report.record import Record, read_record
from pipelines.report.tables import count_bytes, read_rows
from pipelines.report.terminal import show_status
from pipelines.schemas import MODEL_VERSION, TABLES
from pipelines.settings.base import local_path
from pipelines.settings.settings import Settings
from pipelines.steps import Job
from pipelines.store.manifests import ExportManifest

__all__ = ["Status", "read_status", "show_status"]  # what its callers need

LAST_NIGHTS = 10
OLDEST_WATCHED = 30  # nights before the newest one that are searched for faults


def read_status(settings: Settings) -> Status:
    """Read the status of a warehouse; one that does not exist yet has no nights and says what to do."""
    record, policy = read_record(settings), settings.night.policy.name
    names = record.nights
    reports = [report_night(record, night, policy) for night in reversed(names[-OLDEST_WATCHED:])]
    served = max((night for night, state in record.states.items() if state.in_force), default=None)
    champions = _find_champions(settings, names[-1] if names else None)
    exports, tables = _find_exports(settings, record), _measure_tables(settings)
    return Status(
        warehouse=settings.warehouse,
        nights=tuple(reports[:LAST_NIGHTS]),
        recorded=len(names),
        served=served,
        champions=champions,
        exports=exports,
        tables=tables,
        problems=tuple(find_problems(settings, reports, champions, exports)) if names else (),
        next_step="" if names else _first_step(settings, tables),
    )


def _first_step(settings: Settings, tables: tuple[TableSize, ...]) -> str:
    """Say what to do with a warehouse that has no nights."""
    known = {table.name for table in tables}
    if "events" not in known:
        days = _drop_days(settings)
        if days:
            return (
                f"There is no event log at {settings.warehouse} yet: load the drops of {len(days):,} days "
                f"that are in {settings.drops} with lime ingest --from {days[0]} --to {days[-1]}"
            )
        return (
            f"There is no event log at {settings.warehouse} yet: write drops into {settings.drops} and load "
            "them with lime ingest --from FIRST_DAY --to LAST_DAY"
        )
    if "champions" not in known:
        return (
            f"The warehouse {settings.warehouse} has an event log but no model yet: train one with "
            "lime train --ds CUTOFF"
        )
    return (
        f"The warehouse {settings.warehouse} has a model but no night yet: run one with "
        "lime night --ds NIGHT, or unpause the DAG nightly_scoring"
    )


def _drop_days(settings: Settings) -> list[str]:
    """Return the days of the drops of events, ascending; empty where they are not on this machine."""
    root = local_path(settings.drops)
    return local_days(root / "events") if root is not None else []


def _find_champions(settings: Settings, night: str | None) -> tuple[Champion, ...]:
    """Find the champion of each model on a night; without a night, the one of the latest decision."""
    columns = ["number", "model", "valid_from", MODEL_VERSION, "reason"]
    decisions = read_rows(settings, "champions", columns)
    found = []
    for model in sorted({row["model"] for row in decisions}):
        mine = sorted(
            (row for row in decisions if row["model"] == model),
            key=lambda row: (row["valid_from"], row["number"]),
        )
        valid = [row for row in mine if night is None or str(row["valid_from"]) <= night]
        if not valid:
            continue
        now = valid[-1]
        # A bundle that was made champion again is as old as its first decision says.
        since = min(row["valid_from"] for row in valid if row[MODEL_VERSION] == now[MODEL_VERSION])
        age = (dt.date.fromisoformat(night) - since).days if night else 0
        found.append(Champion(model, now[MODEL_VERSION], str(since), age, now["reason"] or ""))
    return tuple(found)


def _find_exports(settings: Settings, record: Record) -> tuple[Export, ...]:
    """Find the newest export to each place that the settings name."""
    wanted = [name for name, place in settings.export if place is not None]
    done = sorted(
        (run for run, jobs in record.rows.items() if Job.EXPORT_RECOMMENDATIONS in jobs), reverse=True
    )
    found = []
    for name in wanted:
        reports = ((run, record.find(run, ExportManifest)) for run in done)
        newest = next(
            ((run, e.model_extra or {}) for run, e in reports if e and name in (e.model_extra or {})), None
        )
        run_id, facts = newest or (None, {})
        found.append(Export(name, run_id, dict(facts.get(name) or {})))
    return tuple(found)


def _measure_tables(settings: Settings) -> tuple[TableSize, ...]:
    """Measure the live files of each table, the largest table first."""
    sizes = []
    for name in (*TABLES, "items", "users"):
        if found := count_bytes(settings, name):
            sizes.append(TableSize(name, *found))
    return tuple(sorted(sizes, key=lambda size: (-size.bytes, size.name)))
