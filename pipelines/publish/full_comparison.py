"""Prove an incremental night: score the same night in full, and compare every list.

The full night reads the same states and bank. It is staged in tables of its own, under a run that owns no
night.
"""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.publish.night_record import find_disproved_in_force
from pipelines.publish.night_state import describe_remedy
from pipelines.publish.verify_night import CertificateFailed
from pipelines.schemas import POLICY, RUN_ID, USER_ID
from pipelines.score.stage import score_candidates
from pipelines.store.apart import STAGED_TABLES, set_apart
from pipelines.store.leases import Run
from pipelines.store.manifests import (
    BankManifest,
    DisprovedManifest,
    FullComparisonManifest,
    ScoreManifest,
    StatesManifest,
)
from pipelines.store.runs import need_manifest, record, run_once
from pipelines.store.tables import Warehouse


def verify_full(warehouse: Warehouse, run: Run) -> FullComparisonManifest:
    """Compare all staged lists of the published policy with those of a full night.

    Raises:
        CertificateFailed: lists differ; the message names how many, one of the users, and the command that
            takes such lists back if readers are served them. The run is marked: no later night starts from
            it, and it is neither published nor exported.
    """

    def work() -> FullComparisonManifest:
        policy = warehouse.settings.night.policy
        scored = need_manifest(warehouse, run, ScoreManifest)
        full_night = prepare_full_night(warehouse, run)
        full = score_candidates(full_night.warehouse, full_night.run, [policy])
        mine = _lists(warehouse, scored.versions["staging"], run, policy.name, "mine")
        other = _lists(full_night.warehouse, full.versions["staging"], full_night.run, policy.name, "full")
        differ = mine.join(other, USER_ID, "full_outer").where(~F.col("mine").eqNullSafe(F.col("full")))
        found = differ.agg(F.count("*").alias("users"), F.min(USER_ID).alias("first")).collect()[0]
        report, full_report = scored.policies[policy.name], full.policies[policy.name]
        if found["users"]:
            disproved = DisprovedManifest(users=found["users"], full_run=full_night.run.run_id)
            record(warehouse, run.run_id, run.ds, disproved)
            raise CertificateFailed(
                f"night {run.ds}, run {run.key!r}: {found['users']} of {full_report.users} lists are not "
                f"those of a full night, such as user {found['first']!r}'s; compare run_id {run.run_id} in "
                f"staging and {full_night.run.run_id} in {full_night.warehouse.path('staging')}. "
                f"{_describe_served(warehouse)}Score the night with night.reuse: false under a new --run-key"
            )
        return FullComparisonManifest(
            users=full_report.users,
            plan_reason=report.plan_reason,
            pairs=report.pairs,
            pairs_of_full_night=full_report.pairs,
            seconds_of_full_night=full_report.seconds,
            passed=True,
        )

    return run_once(warehouse, run, FullComparisonManifest, work)


class FullNight(NamedTuple):
    """A run that owns no night, and the warehouse that it stages in."""

    warehouse: Warehouse
    run: Run


def _describe_served(warehouse: Warehouse) -> str:
    """Describe the lists in force that are disproved or built on disproved ones, and the remedy."""
    said = [
        f"Readers of night {state.night} are served the lists of run {state.in_force}, which is "
        f"disproved or was built on such a run. {describe_remedy(state)}; then export the night again. "
        for state in find_disproved_in_force(warehouse)
    ]
    return "".join(said)


def prepare_full_night(warehouse: Warehouse, run: Run) -> FullNight:
    """Make a run that scores a full night with the states and the bank of `run`."""
    full_night = Run(run.ds, f"{run.run_id.split('.', 1)[1]}-full")
    apart = set_apart(warehouse, full_night.run_id, STAGED_TABLES)
    for kind in (BankManifest, StatesManifest):
        record(apart, full_night.run_id, run.ds, need_manifest(warehouse, run, kind))
    return FullNight(apart, full_night)


def _lists(warehouse: Warehouse, version: int, run: Run, policy: str, name: str) -> DataFrame:
    """Select `user_id` and, as the column `name`, everything that a reader of the list would see."""
    rows = warehouse.read("staging", version).where((F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy))
    return rows.select(USER_ID, F.struct("candidates", "shortfall", "fault").alias(name))
