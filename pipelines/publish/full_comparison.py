"""The proof of an incremental night: the same night scored in full, list by list.

Over the same states and bank, staged apart from the nightly tables under a run that owns nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.publish.night_record import find_disproved_in_force
from pipelines.publish.night_state import describe_remedy
from pipelines.publish.verify_night import CertificateFailed
from pipelines.score.incremental import DISPROVED
from pipelines.score.stage import score_candidates
from pipelines.store.apart import SCORED, set_apart
from pipelines.store.leases import Run
from pipelines.store.runs import Manifest, need_manifest, record, run_once
from pipelines.store.schemas import POLICY, RUN_ID, USER_ID
from pipelines.store.tables import Warehouse


def verify_full(warehouse: Warehouse, run: Run) -> Manifest:
    """Compare all staged lists of the published policy with those of a full night.

    Raises:
        CertificateFailed: naming how many users differ, and one of them, and what takes back such lists
            where readers are served them; the run is marked, so that no later night starts from it and it is
            neither published nor exported.
    """

    def work() -> Manifest:
        policy = warehouse.settings.night.policy
        scored = need_manifest(warehouse, run, "score_candidates")
        whole = full_night_run(warehouse, run)
        full = score_candidates(whole.warehouse, whole.run, [policy])
        mine = _lists(warehouse, scored["versions"]["staging"], run, policy.name, "mine")
        other = _lists(whole.warehouse, full["versions"]["staging"], whole.run, policy.name, "full")
        differ = mine.join(other, USER_ID, "full_outer").where(~F.col("mine").eqNullSafe(F.col("full")))
        count, first = differ.agg(F.count("*"), F.min(USER_ID)).collect()[0]
        users, pairs = full["policies"][policy.name]["users"], full["policies"][policy.name]["pairs"]
        if count:
            record(
                warehouse, run.run_id, run.ds, DISPROVED, {"users": count, "full_night_run": whole.run.run_id}
            )
            raise CertificateFailed(
                f"night {run.ds}, run {run.key!r}: {count} of {users} lists are not those of a full night, "
                f"such as user {first!r}'s; compare run_id {run.run_id} in staging and {whole.run.run_id} "
                f"in {whole.warehouse.path('staging')}. {_describe_served(warehouse)}Score the night with "
                "night.reuse: false under a new --run-key"
            )
        report = scored["policies"][policy.name]
        return {
            "users": users,
            "plan": report["plan"],
            "pairs": report["pairs"],
            "pairs_of_full_night": pairs,
            "seconds_of_full_night": full["policies"][policy.name]["seconds"],
            "passed": True,
        }

    return run_once(warehouse, run, "verify_full", work)


class FullNight(NamedTuple):
    """A run that owns nothing, and the warehouse that it stages in."""

    warehouse: Warehouse
    run: Run


def _describe_served(warehouse: Warehouse) -> str:
    """What readers are served of disproved lists, and of lists that were built on such, and the remedy."""
    said = [
        f"Readers of night {state.night} are served the lists of run {state.in_force}, which is "
        f"disproved or was built on such a run. {describe_remedy(state)}; then export the night again. "
        for state in find_disproved_in_force(warehouse)
    ]
    return "".join(said)


def full_night_run(warehouse: Warehouse, run: Run) -> FullNight:
    """What scores a full night over the states and the bank of `run`."""
    whole = Run(run.ds, f"{run.run_id.split('.', 1)[1]}-full")
    apart = set_apart(warehouse, whole.run_id, SCORED)
    for job in ("build_candidate_bank", "build_link_states"):
        record(apart, whole.run_id, run.ds, job, need_manifest(warehouse, run, job))
    return FullNight(apart, whole)


def _lists(warehouse: Warehouse, version: int, run: Run, policy: str, name: str) -> DataFrame:
    """`user_id, name`: everything that a reader of the list would see."""
    rows = warehouse.read("staging", version).where((F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy))
    return rows.select(USER_ID, F.struct("candidates", "shortfall", "fault").alias(name))
