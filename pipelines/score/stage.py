"""Broadcast-score: the packed bank goes to every host once, states stream through one Arrow UDF.

Results are staged under the run, a few work units per commit; a retry takes up the units
that are missing. Nothing here is visible to readers of `recommendations`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from pipelines.models.bundles import ship_bundle, shipped_folder
from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.broadcast_files import BroadcastFiles, unpack_once
from pipelines.score.forecast import compare_forecast, find_forecast
from pipelines.score.incremental import ENTRIES, FILE, KEPT, ShippedChanges, take_over
from pipelines.score.packed_bank import INDEX, quarantine_items, refuse_damaged
from pipelines.score.placement import Placement, own_device, place_scoring
from pipelines.score.plan import ScoringPlan
from pipelines.score.prepare import prepare_scoring
from pipelines.score.users import SCORED, read_users
from pipelines.score.work_units import WorkUnit, missing
from pipelines.settings.settings import Policy
from pipelines.store.leases import Run, begin_attempt, check_lease
from pipelines.store.progress import Progress
from pipelines.store.row_digests import compute_checksum
from pipelines.store.runs import Manifest, run_once
from pipelines.store.schemas import BUCKET, CHECKSUM, FINGERPRINT, POLICY, RUN_ID, USER_ID
from pipelines.store.tables import SQL_TYPES, Warehouse, WriteConflict
from pipelines.udfs.score_task import ScoreTask
from pipelines.udfs.score_users import SCHEMA, score_users

TASKS_PER_CORE = 2  # of a commit, at least
# What is said of a policy, and what nobody staged gives.
COUNTED: dict[str, Any] = {
    "users": 0,
    "pairs": 0,
    "pairs_avoided": 0,
    "users_with_shortfall": 0,
    "users_left_out": 0,
    "users_taken_over": 0,
    "pairs_taken_over": 0,
    "anchors": [],
}


def score_candidates(
    warehouse: Warehouse, run: Run, policies: Sequence[Policy], *, job: str = "score_candidates"
) -> Manifest:
    """Score every user against every eligible candidate under each policy, into `staging`."""

    def work() -> Manifest:
        inputs = NightInputs.of(warehouse, run)
        bundle = ship_bundle(warehouse, inputs.model, inputs.model_version)
        night = warehouse.settings.night
        placement = place_scoring(warehouse.spark.sparkContext, night.backend, night.device)
        choice = placement.choice
        ready = prepare_scoring(warehouse, run, job, inputs, bundle, policies)
        plan, tonight, banks = ready.plan, ready.tonight, ready.banks
        left_out = {item: reason for bank in banks.values() for item, reason in bank.damaged.items()}
        quarantine_items(warehouse, run, left_out)
        tasks = [
            (
                ScoreTask(
                    model_version=bundle.version, night=run.ds, k=night.k,
                    exclude_seen={p.name: p.exclude_seen for p in policies if p.eligible == eligible},
                    backend=choice.backend, device=choice.device, strict=night.strict, run_id=run.run_id,
                    entries=plan.entries["entries"] if plan.entries else 0,
                    base_ds=plan.base.ds if plan.base else "",
                ),
                Shipped(bank.parcel, tonight),
            )
            for eligible, bank in banks.items()
        ]  # fmt: skip
        try:
            attempt = begin_attempt(warehouse, run, job)
            staged = _stage(warehouse, attempt, inputs, plan, tasks, placement, ready.pairs)
        finally:
            for parcel in (*(bank.parcel for bank in banks.values()), *([tonight.parcel] if tonight else [])):
                parcel.destroy()
        anchors = [counts.pop("anchors") for counts in staged.values()]
        kept = {
            "of": plan.entries,
            "anchors": anchors[0],
            "items_left_out": len(left_out),
            "changed": tonight.changed if tonight else 0,
        }
        return {
            "model": inputs.model,
            "model_version": inputs.model_version,
            "k": night.k,
            "backend": choice._asdict(),
            "items_left_out": len(left_out),
            "policies": staged,
            **({"entries": kept} if plan.entries else {}),
            **compare_forecast(find_forecast(warehouse, run), staged),
            "versions": {"staging": warehouse.version("staging")},
        }

    return run_once(warehouse, run, job, work)


class Shipped(NamedTuple):
    """What is on every host: the packed bank, and of an incremental night what changed."""

    bank: BroadcastFiles
    tonight: ShippedChanges | None


def _stage(
    warehouse: Warehouse,
    run: Run,
    inputs: NightInputs,
    plan: ScoringPlan,
    tasks: Sequence[tuple[ScoreTask, Shipped]],
    placement: Placement,
    expected: int,
) -> dict[str, Manifest]:
    """Stage the units that are missing, all policies of a unit in one commit; returns counts by policy.

    Args:
        expected: pairs of the whole night.
    """
    started = time.monotonic()
    mine = F.col(RUN_ID) == run.run_id
    # A first attempt finds nothing staged.
    earlier = warehouse.read("staging").where(mine).select(BUCKET) if run.attempt != 1 else None
    staged = earlier.distinct().collect() if earlier else []
    groups = plan.full.commits(plan.units_per_commit)
    left = missing(groups, (row[0] for row in staged))
    policy = next(iter(tasks[0][0].exclude_seen))
    progress = Progress(
        warehouse.spark.sparkContext, f"night {run.run_id}", len(left), expected * len(left) // len(groups)
    )
    for done, index in enumerate(left):
        check_lease(warehouse, run)
        progress.report(done)
        select_and_partition = partial(_lay_out, units=groups[index], tasks=placement.tasks)
        users = take_over(
            warehouse,
            read_users(warehouse, inputs, select_and_partition),
            plan.base,
            policy,
            select_and_partition,
        )
        frames = [score_lists(warehouse, users, *task, placement) for task in tasks]
        rows = reduce(DataFrame.unionByName, frames).withColumn(RUN_ID, F.lit(run.run_id))
        rows = rows.withColumn(CHECKSUM, compute_checksum(KEPT))
        # The transaction number lets each group in once, whoever else is retrying it.
        try:
            warehouse.append("staging", rows, txn=(f"stage-{run.run_id}-{index}", 1))
        except WriteConflict:
            check_lease(warehouse, run)  # says who goes on instead
            # Or an older attempt woke up and staged this group: the same rows, as it is the same plan.
            if not warehouse.read("staging").where(mine & buckets_of(groups[index])).take(1):
                raise
    check_lease(warehouse, run)
    progress.report(len(left))
    counted = count_staged(warehouse, run, [unit for index in left for unit in groups[index]])
    for row in counted:
        refuse_damaged(
            "link states and memories of users", row["users_left_out"], row["users"], row["first"], warehouse
        )
    seconds = time.monotonic() - started
    common = {
        "plan": plan.why,
        "units": len(plan.full.units),
        "commits": len(groups),
        "commits_reused": len(groups) - len(left),
        "seconds": round(seconds, 3),  # of all policies together, like the rate
        "pairs_per_second": round(sum(row["fresh"] for row in counted) / seconds),
    }
    by_policy = {row[POLICY]: {name: row[name] for name in COUNTED} for row in counted}
    policies = [policy for task, _ in tasks for policy in task.exclude_seen]
    return {policy: {**common, **(COUNTED | by_policy.get(policy, {}))} for policy in policies}


def count_staged(warehouse: Warehouse, run: Run, units: Sequence[WorkUnit]) -> list[Row]:
    """By policy, `COUNTED` over all that the run has staged; the pairs of these units, and a damaged user."""
    over = F.col("anchor") != run.run_id  # an earlier night has scored the user in full
    return (
        warehouse.read("staging")
        .where(F.col(RUN_ID) == run.run_id)
        .groupBy(POLICY)
        .agg(
            F.count("*").alias("users"),
            F.sum("pairs").alias("pairs"),
            F.sum("avoided").alias("pairs_avoided"),
            F.sum((F.col("shortfall") > 0).cast("int")).alias("users_with_shortfall"),
            F.count("fault").alias("users_left_out"),
            F.count_if(over).alias("users_taken_over"),
            F.sum(F.when(over, F.col("pairs")).otherwise(0)).alias("pairs_taken_over"),
            F.sort_array(F.collect_set("anchor")).alias("anchors"),
            F.sum(F.when(buckets_of(units), F.col("pairs")).otherwise(0)).alias("fresh"),
            F.min(F.when(F.col("fault").isNotNull(), F.struct(USER_ID, "fault"))).alias("first"),
        )
        .collect()
    )


def buckets_of(units: Sequence[WorkUnit]) -> Column:
    """Whether a row belongs to one of the units."""
    return F.col(BUCKET).isin([unit.bucket for unit in units])


def _lay_out(rows: DataFrame, units: Sequence[WorkUnit], tasks: int) -> DataFrame:
    """Rows of the units' users, as they are joined and scored: nothing is shuffled twice.

    Tasks share the users evenly, whatever their units: the commit waits for the last one.
    """
    parts = max(len(units), TASKS_PER_CORE * tasks)
    return rows.where(buckets_of(units)).repartition(parts, USER_ID)


def score_lists(
    warehouse: Warehouse, users: DataFrame, task: ScoreTask, shipped: Shipped, placement: Placement
) -> DataFrame:
    """Lists of users by `mapInArrow`, over what was shipped."""
    ids = warehouse.settings.ids
    schema = SCHEMA.format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])

    def score(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        mine = dataclasses.replace(task, device=own_device(task.device))
        tonight = unpack_once(shipped.tonight.parcel) / FILE if shipped.tonight else None
        folder = shipped_folder(task.model_version)
        yield from score_users(batches, mine, folder, unpack_once(shipped.bank) / INDEX, tonight)

    chosen = users.select(USER_ID, BUCKET, *SCORED, "sound", FINGERPRINT, *ENTRIES)
    return chosen.mapInArrow(score, schema, profile=placement.profile)
