"""Broadcast-score: the packed bank goes to every host once, states stream through one Arrow UDF.

Results are staged under the run, a few work units per commit; a retry takes up the units
that are missing. Nothing here is visible to readers of `recommendations`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.banks import INDEX, quarantine_items, refuse_damaged, ship_bank
from pipelines.bundles import ship_bundle, shipped_folder
from pipelines.columns import BUCKET, CHECKSUM, MODEL_VERSION, POLICY, RUN_ID, USER_ID
from pipelines.forecast import compare_forecast
from pipelines.gpus import Placement, own_device, place
from pipelines.inputs import NightInputs, check_version
from pipelines.leases import Run, begin_attempt, check_lease
from pipelines.link_states import PAYLOAD
from pipelines.parcels import Parcel, land
from pipelines.plan import Plan, WorkUnit, missing, plan_full
from pipelines.progress import Progress
from pipelines.reuse import compute_checksum
from pipelines.runs import Manifest, find_manifest, need_manifest, once
from pipelines.settings import Policy, SettingsError
from pipelines.tables import SQL_TYPES, Warehouse, WriteConflict
from pipelines.udfs.score_users import SCHEMA, ScoreTask, score_users

TASKS_PER_CORE = 2  # of a commit, at least


def score_candidates(
    warehouse: Warehouse, run: Run, policies: Sequence[Policy], *, job: str = "score_candidates"
) -> Manifest:
    """Score every user against every eligible candidate under each policy, into `staging`."""

    def work() -> Manifest:
        inputs = NightInputs.of(warehouse, run)
        bundle = ship_bundle(warehouse, inputs.model)
        check_version(bundle, inputs)
        check_policies(need_manifest(warehouse, run, "build_candidate_bank"), policies)
        night = warehouse.settings.night
        placement = place(warehouse.spark.sparkContext, night.backend, night.device)
        choice = placement.choice
        # One dense pass serves all policies over the same candidates.
        banks = {
            eligible: ship_bank(warehouse, run, bundle, inputs, _bit(policies, eligible))
            for eligible in dict.fromkeys(policy.eligible for policy in policies)
        }
        left_out = {item: reason for bank in banks.values() for item, reason in bank.damaged.items()}
        quarantine_items(warehouse, run, left_out)
        tasks = [
            (
                ScoreTask(
                    model_version=bundle.version, night=run.ds, k=night.k,
                    exclude_seen={p.name: p.exclude_seen for p in policies if p.eligible == eligible},
                    backend=choice.backend, device=choice.device, strict=night.strict,
                ),
                bank.parcel,
            )
            for eligible, bank in banks.items()
        ]  # fmt: skip
        try:
            staged = _stage(warehouse, begin_attempt(warehouse, run, job), inputs, tasks, placement)
        finally:
            for bank in banks.values():
                bank.parcel.destroy()
        return {
            "model": inputs.model,
            "model_version": inputs.model_version,
            "k": night.k,
            "backend": choice._asdict(),
            "items_left_out": len(left_out),
            "policies": staged,
            **compare_forecast(find_manifest(warehouse, run.run_id, "plan_night"), staged),
            "versions": {"staging": warehouse.version("staging")},
        }

    return once(warehouse, run, job, work)


def _bit(policies: Sequence[Policy], eligible: str) -> int:
    """Position of the first policy with this eligibility: its bit in the bank."""
    return next(bit for bit, policy in enumerate(policies) if policy.eligible == eligible)


def check_policies(bank: Manifest, policies: Sequence[Policy]) -> None:
    """The bank's eligibility bits must be those of the policies, in their order.

    Raises:
        SettingsError: the policies changed after the bank was built.
    """
    wanted = [policy.eligible for policy in policies]
    if bank["eligible_where"] != wanted:
        raise SettingsError(
            f"the bank was built for eligibility {bank['eligible_where']} and the policies now say {wanted}; "
            "restore them or build the night again under a new --run-key"
        )


def read_users(warehouse: Warehouse, inputs: NightInputs) -> DataFrame:
    """States with memories, one row per user; `sound`: both are as written."""
    versions = {"user_link_states": inputs.states, "user_memory": inputs.memory}
    states, memory = (
        warehouse.read(name, version)
        .where(F.col(MODEL_VERSION) == inputs.model_version)
        .withColumn(name, F.col(CHECKSUM) == compute_checksum(PAYLOAD[name]))
        for name, version in versions.items()
    )
    both = states.join(
        memory.select(USER_ID, "items", "last_ts", "features", "user_memory"), USER_ID, "inner"
    )
    sound = (F.col("user_link_states") & F.col("user_memory")).alias("sound")
    columns = (
        "as_of",
        "event_count",
        "last_event_ts",
        "state",
        "slots",
        "weights",
        "items",
        "last_ts",
        "features",
    )
    return both.select(USER_ID, BUCKET, *columns, sound)


def _stage(
    warehouse: Warehouse,
    run: Run,
    inputs: NightInputs,
    tasks: Sequence[tuple[ScoreTask, Parcel]],
    placement: Placement,
) -> dict[str, Manifest]:
    """Stage the units that are missing, all policies of a unit in one commit; returns counts by policy."""
    started = time.monotonic()
    mine = F.col(RUN_ID) == run.run_id
    staged = warehouse.read("staging").where(mine).select(BUCKET).distinct().collect()
    plan, size = fix_plan(warehouse, run)
    groups = plan.commits(size)
    users = read_users(warehouse, inputs)
    left = missing(groups, (row[0] for row in staged))
    expected = _expected_pairs(warehouse, run, tasks) * len(left) // len(groups)
    progress = Progress(warehouse.spark.sparkContext, f"night {run.run_id}", len(left), expected)
    for done, index in enumerate(left):
        check_lease(warehouse, run)
        progress.report(done)
        frames = [score_units(warehouse, users, groups[index], *task, placement) for task in tasks]
        rows = reduce(DataFrame.unionByName, frames).withColumn(RUN_ID, F.lit(run.run_id))
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
    short = F.sum((F.col("shortfall") > 0).cast("int"))
    just_now = buckets_of([unit for index in left for unit in groups[index]])
    fresh = F.sum(F.when(just_now, F.col("pairs")).otherwise(0))
    totals = warehouse.read("staging").where(mine).groupBy(POLICY)
    first = F.min(F.when(F.col("fault").isNotNull(), F.struct(USER_ID, "fault")))
    counted = totals.agg(F.count("*"), F.sum("pairs"), short, F.count("fault"), fresh, first).collect()
    for _, total, _, _, faulty, _, named in counted:
        refuse_damaged("link states and memories of users", faulty, total, named, warehouse)
    seconds = time.monotonic() - started
    rows_by_policy = {row[0]: row[1:5] for row in counted}
    common = {
        "plan": plan.why,
        "units": len(plan.units),
        "commits": len(groups),
        "commits_reused": len(groups) - len(left),
        "seconds": round(seconds, 3),  # of all policies together, like the rate
        "pairs_per_second": round(sum(row[5] for row in counted) / seconds),
    }
    policies = [policy for task, _ in tasks for policy in task.exclude_seen]
    counts = {policy: rows_by_policy.get(policy, (0, 0, 0, 0)) for policy in policies}
    names = ("users", "pairs", "users_with_shortfall", "users_left_out")
    return {policy: {**common, **dict(zip(names, row, strict=True))} for policy, row in counts.items()}


def fix_plan(warehouse: Warehouse, run: Run) -> tuple[Plan, int]:
    """The plan of the run and how many of its units share a commit: whatever the settings say by now.

    A retry that cut the units otherwise could not tell which are staged.
    """
    night = warehouse.settings.night
    cut = {"buckets": night.buckets, "units_per_commit": night.units_per_commit}
    fixed = once(warehouse, run, f"{run.job or 'score_candidates'}_plan", lambda: dict(cut))
    return plan_full(fixed["buckets"]), fixed["units_per_commit"]


def buckets_of(units: Sequence[WorkUnit]) -> Column:
    """Whether a row belongs to one of the units."""
    return F.col(BUCKET).isin([unit.bucket for unit in units])


def _expected_pairs(warehouse: Warehouse, run: Run, tasks: Sequence[tuple[ScoreTask, Parcel]]) -> int:
    """Of a whole night: one dense pass per task, whatever its policies exclude."""
    states = need_manifest(warehouse, run, "build_link_states")
    eligible = need_manifest(warehouse, run, "build_candidate_bank")["eligible"]
    return sum(states["users"] * int(eligible[next(iter(task.exclude_seen))]) for task, _ in tasks)


def score_units(
    warehouse: Warehouse,
    users: DataFrame,
    units: Sequence[WorkUnit],
    task: ScoreTask,
    parcel: Parcel,
    placement: Placement,
) -> DataFrame:
    """Lists of the users of these units by `mapInArrow`, over the bank in the parcel.

    Tasks share the users evenly, whatever their units: the commit waits for the last one.
    """
    ids = warehouse.settings.ids
    schema = SCHEMA.format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])

    def score(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        mine = dataclasses.replace(task, device=own_device(task.device))
        yield from score_users(batches, mine, shipped_folder(task.model_version), land(parcel) / INDEX)

    parts = max(len(units), TASKS_PER_CORE * placement.tasks)
    mine = users.where(buckets_of(units)).repartition(parts, USER_ID)
    return mine.select(
        USER_ID, BUCKET, "state", "slots", "weights", "items", "last_ts", "features", "sound"
    ).mapInArrow(score, schema, profile=placement.profile)
