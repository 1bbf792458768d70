"""Choose the earlier run that an incremental night starts from.

It is the newest earlier run that was scored for the same model, policy, K and code and that passed its
certificate. Without such a run the night is scored in full, and its manifest says why.
"""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import functions as F

from lime_model.digests import code_digest
from pipelines.schemas import RUN_ID
from pipelines.settings.night import Policy
from pipelines.store.disproved import add_descendants
from pipelines.store.leases import Run
from pipelines.store.manifests import (
    BaseRun,
    CertificateManifest,
    DisprovedManifest,
    EntriesReport,
    EntryRules,
    ScoreManifest,
    ScoringPlanManifest,
    TidyManifest,
)
from pipelines.store.row_digests import row_code
from pipelines.store.runs import find_manifests, first_readable
from pipelines.store.tables import Warehouse

MARGIN = 2  # entries that are kept beyond K, as a multiple of K
MAX_ANCHORS = 28  # nights whose biases every worker holds, at 8 bytes an item each
STAGED = ("staging", "candidate_history")  # tables in which a run leaves rows for later nights
# The modules that decide lists and entries: scoring, and which candidates count as changed.
SCORES = ("pipelines.udfs.score_users", "pipelines.score.candidate_history", "pipelines.score.incremental")


class BaseChoice(NamedTuple):
    """The run that a night starts from (None for a full night), and the reason."""

    base: BaseRun | None
    reason: str


def describe_entries(warehouse: Warehouse, model_version: str, policy: Policy) -> EntryRules:
    """Describe what the entries of an earlier run must have in common with this night's to be reusable.

    Args:
        warehouse: gives K and the number of buckets.
        model_version: the version of the bundle that scores.
        policy: the policy whose lists are scored.
    """
    night = warehouse.settings.night
    return EntryRules(
        model_version=model_version,
        k=night.k,
        entries=night.k * (1 + MARGIN),
        policy=policy.model_dump(mode="json"),
        buckets=night.buckets,
        code=f"{code_digest(*SCORES)} {row_code()}",
    )


def find_base(warehouse: Warehouse, run: Run, rules: EntryRules) -> BaseChoice:
    """Find the run to start from.

    Args:
        warehouse: holds the runs.
        run: the run of the night that is to be scored.
        rules: the result of `describe_entries` for this night.
    """
    if not warehouse.settings.night.reuse:
        return BaseChoice(None, "full night: night.reuse is false")
    certified = {d.run_id for d in find_manifests(warehouse, CertificateManifest) if d.manifest.passed}
    plans = {done.run_id: done.manifest for done in find_manifests(warehouse, ScoringPlanManifest)}
    tidied = [done.manifest.staged_from for done in find_manifests(warehouse, TidyManifest)]
    staged_from, disproved = max(tidied, default=""), find_disproved(warehouse)
    scored = [done for done in find_manifests(warehouse, ScoreManifest) if done.ds < run.ds]
    why = ""
    for done in sorted(scored, key=lambda each: (each.ds, _epoch(each.run_id), each.run_id), reverse=True):
        kept = done.manifest.entries
        if kept is None or done.run_id not in certified or done.run_id in disproved:
            continue
        if done.ds < staged_from and not is_staged(warehouse, done.run_id):
            why = why or f"upkeep has dropped what run {done.run_id} staged"
            break  # upkeep has also dropped what earlier runs staged
        unfit = _find_difference(kept, rules, done.run_id)
        if not unfit and done.manifest.versions["staging"] < first_readable(warehouse, "staging"):
            unfit = f"a person was forgotten since run {done.run_id}"
        if not unfit:
            before = plans[done.run_id].base
            base = BaseRun(
                run_id=done.run_id,
                ds=done.ds,
                anchors=sorted(kept.anchors)[-MAX_ANCHORS:],
                held=before.anchors if before else [],
            )
            return BaseChoice(base, f"incremental night: from run {done.run_id}")
        why = why or unfit  # the reason of the newest run is reported
    return BaseChoice(None, f"full night: {why or 'no earlier certified one'}")


def _find_difference(kept: EntriesReport, rules: EntryRules, run_id: str) -> str:
    """Say why the entries of a run can't be reused; return an empty text if they can."""
    before, now = kept.rules.model_dump(mode="json"), rules.model_dump(mode="json")
    if changed := [name for name, value in now.items() if before[name] != value]:
        return f"{', '.join(changed)} changed since run {run_id}"
    return f"run {run_id} left damaged items out" if kept.items_left_out else ""


def is_staged(warehouse: Warehouse, run_id: str) -> bool:
    """Whether both tables that a later night needs still have rows of the run.

    Upkeep records which nights it is about to drop, but it keeps pinned and unfinished runs. So the tables
    decide, not the record.
    """
    mine = F.col(RUN_ID) == run_id
    return all(warehouse.read(name).where(mine).select(RUN_ID).take(1) for name in STAGED)


def find_disproved(warehouse: Warehouse) -> frozenset[str]:
    """Find the runs whose lists a full night has disproved, and all runs that were built on them."""
    false = [done.run_id for done in find_manifests(warehouse, DisprovedManifest)]
    plans = find_manifests(warehouse, ScoringPlanManifest)
    return add_descendants(false, {done.run_id: done.manifest for done in plans})


def _epoch(run_id: str) -> int:
    """Return the epoch of a run that owns a night, and -1 for a run that only stages."""
    name = run_id.split(".", 1)[1]
    return int(name) if name.isdigit() else -1
