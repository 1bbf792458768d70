"""Score a night: every host gets the packed bank once, and states stream through one Arrow UDF.

The lists are staged under the run, a few work units in each commit; a retry scores only the units that are
missing. Readers of `recommendations` do not see staged lists.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.models.bundles import ship_bundle, shipped_folder
from pipelines.models.pinned_inputs import NightInputs
from pipelines.schemas import (
    BUCKET,
    CHECKSUM,
    FINGERPRINT,
    POLICY,
    RUN_ID,
    SCORED,
    SQL_TYPES,
    USER_ID,
    ddl_of,
)
from pipelines.score.broadcast_files import BroadcastFiles, unpack_once
from pipelines.score.forecast import compare_forecast, find_forecast
from pipelines.score.incremental import ENTRIES, FILE, take_over
from pipelines.score.packed_bank import INDEX, quarantine_items, refuse_damaged
from pipelines.score.placement import Placement, own_device, place_scoring
from pipelines.score.plan import find_missing, group_buckets
from pipelines.score.prepare import PreparedNight, prepare_scoring
from pipelines.score.users import READ, read_users
from pipelines.settings.night import Policy
from pipelines.steps import Job
from pipelines.store.leases import Run, begin_attempt, check_lease
from pipelines.store.manifests import (
    BackendReport,
    EntriesReport,
    PolicyReport,
    ScoreManifest,
    ScoringPlanManifest,
)
from pipelines.store.progress import Progress
from pipelines.store.row_digests import compute_checksum
from pipelines.store.runs import run_once
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import WriteConflict
from pipelines.udfs.score_task import ScoreTask
from pipelines.udfs.score_users import score_users

TASKS_PER_CORE = 2  # the least number of tasks of a commit for each core


def score_candidates(warehouse: Warehouse, run: Run, policies: Sequence[Policy]) -> ScoreManifest:
    """Score every user against every eligible candidate under each policy, into `staging`.

    Args:
        warehouse: holds the tables.
        run: the run whose lists are staged.
        policies: the policies whose lists are wanted; the bank must have been built for them.

    Raises:
        BundleError: more rows are damaged than `night.max_damaged_share` allows.
        SettingsError: the policies or the rules of scoring changed; see `prepare_scoring`.
        StaleRun: another run owns the night.
    """

    def work() -> ScoreManifest:
        inputs = NightInputs.of(warehouse, run)
        bundle = ship_bundle(warehouse, inputs.model, inputs.model_version)
        night = warehouse.settings.night
        placement = place_scoring(warehouse.spark.sparkContext, night.backend, night.device)
        ready = prepare_scoring(warehouse, run, inputs, bundle, policies)
        left_out = ready.left_out
        quarantine_items(warehouse, run, left_out)
        passes = _plan_passes(warehouse, run, bundle, policies, ready, placement)
        try:
            attempt = begin_attempt(warehouse, run, Job.SCORE_CANDIDATES)
            forecast = find_forecast(warehouse, run)
            staging = Staging(warehouse, attempt, inputs, ready.plan, placement, passes)
            staged = staging.stage(ready.pairs, forecast.predicted_seconds if forecast else None)
        finally:
            ready.destroy()
        return ScoreManifest(
            model=inputs.model,
            model_version=inputs.model_version,
            k=night.k,
            backend=BackendReport(**placement.choice._asdict()),
            items_left_out=len(left_out),
            policies=staged.policies,
            entries=_report_entries(ready, staged),
            forecast=compare_forecast(forecast, staged.policies),
            versions={"staging": warehouse.version("staging")},
        )

    return run_once(warehouse, run, ScoreManifest, work)


def _report_entries(ready: PreparedNight, staged: Staged) -> EntriesReport | None:
    """Collect what later nights must know about the kept entries; return None if none are kept."""
    if ready.plan.entries is None:
        return None
    return EntriesReport(
        rules=ready.plan.entries,
        anchors=staged.anchors,
        items_left_out=len(ready.left_out),
        changed=ready.changes.changed if ready.changes else 0,
    )


class ScoringPass(NamedTuple):
    """One pass over candidates that some policies share, and the files that every host was sent for it."""

    task: ScoreTask
    bank: BroadcastFiles
    changes: BroadcastFiles | None  # only for an incremental night


def _plan_passes(
    warehouse: Warehouse,
    run: Run,
    bundle: Bundle,
    policies: Sequence[Policy],
    ready: PreparedNight,
    placement: Placement,
) -> list[ScoringPass]:
    """Make one pass for each eligibility rule."""
    night, plan = warehouse.settings.night, ready.plan
    changes = ready.changes.files if ready.changes else None
    passes = []
    for eligible, bank in ready.banks.items():
        task = ScoreTask(
            model_version=bundle.version,
            night=run.ds,
            k=night.k,
            exclude_seen={p.name: p.exclude_seen for p in policies if p.eligible == eligible},
            backend=placement.choice.backend,
            device=placement.choice.device,
            strict=night.strict,
            run_id=run.run_id,
            entries=plan.entries.entries if plan.entries else 0,
            base_ds=plan.base.ds if plan.base else "",
        )
        passes.append(ScoringPass(task, bank.files, changes))
    return passes


class StagedCounts(NamedTuple):
    """What the run has staged for one policy.

    `fresh` is the number of pairs that this attempt scored, and `first_fault` is a user who was left out,
    with the fault.
    """

    users: int
    pairs: int
    pairs_avoided: int
    users_with_shortfall: int
    users_left_out: int
    users_taken_over: int
    pairs_taken_over: int
    anchors: list[str]
    fresh: int
    first_fault: tuple[object, str] | None


NOTHING_STAGED = StagedCounts(0, 0, 0, 0, 0, 0, 0, [], 0, None)


class Staged(NamedTuple):
    """Reports by policy, and `anchors`: the runs that scored the users of the first policy in full."""

    policies: dict[str, PolicyReport]
    anchors: list[str]


@dataclass(frozen=True)
class Staging:
    """Stages the missing units of a run; the lists of all policies of a unit are in one commit.

    Args:
        warehouse: holds the tables.
        run: the run, with the number of this attempt.
        inputs: the versions of the tables that the run reads.
        plan: the plan of the run.
        placement: what scores, and where.
        passes: the passes over candidates, one for each eligibility rule.
    """

    warehouse: Warehouse
    run: Run
    inputs: NightInputs
    plan: ScoringPlanManifest
    placement: Placement
    passes: Sequence[ScoringPass]

    def stage(self, pairs: int, forecast: float | None) -> Staged:
        """Stage the missing units and count what is staged.

        Args:
            pairs: an estimate of the pairs of the complete night, for the progress in the log.
            forecast: the forecast seconds of the complete night, for the same purpose, if they are known.

        Raises:
            BundleError: more users were left out than the settings allow.
            StaleRun: another run or attempt has taken over the night.
            WriteConflict: another writer changed `staging`.
        """
        started = time.monotonic()
        groups = group_buckets(self.plan)
        missing = find_missing(groups, self._staged_buckets())
        part = len(missing) / len(groups)
        progress = Progress(
            self.warehouse.spark.sparkContext, f"night {self.run.run_id}", len(missing), round(pairs * part),
            None if forecast is None else forecast * part,
        )  # fmt: skip
        for done, index in enumerate(missing):
            check_lease(self.warehouse, self.run)
            progress.report(done)
            self._stage_group(index, groups[index])
        check_lease(self.warehouse, self.run)
        progress.report(len(missing))
        counts = self._count([bucket for index in missing for bucket in groups[index]])
        for staged in counts.values():
            what = "link states and memories of users"
            refuse_damaged(what, staged.users_left_out, staged.users, staged.first_fault, self.warehouse)
        seconds = time.monotonic() - started
        reports = {
            policy: PolicyReport(
                plan_reason=self.plan.why,
                units=self.plan.buckets,
                commits=len(groups),
                commits_reused=len(groups) - len(missing),
                seconds=round(seconds, 3),
                pairs_per_second=round(sum(each.fresh for each in counts.values()) / seconds),
                **{name: value for name, value in counts[policy]._asdict().items() if name in REPORTED},
            )
            for policy in counts
        }
        return Staged(reports, next(iter(counts.values())).anchors)

    def _staged_buckets(self) -> list[int]:
        """Read which buckets earlier attempts have staged."""
        if self.run.attempt == 1:  # there was no earlier attempt
            return []
        mine = F.col(RUN_ID) == self.run.run_id
        rows = self.warehouse.read("staging").where(mine).select(BUCKET).distinct().collect()
        return [row[BUCKET] for row in rows]

    def _stage_group(self, index: int, buckets: Sequence[int]) -> None:
        """Score the users of some buckets and stage their lists in one commit."""
        layout = partial(_select_and_partition, buckets=buckets, tasks=self.placement.tasks)
        policy = next(iter(self.passes[0].task.exclude_seen))
        users = read_users(self.warehouse, self.inputs, layout)
        users = take_over(self.warehouse, users, self.plan.base, policy, layout)
        frames = [score_lists(self.warehouse, users, each, self.placement) for each in self.passes]
        rows = reduce(DataFrame.unionByName, frames).withColumn(RUN_ID, F.lit(self.run.run_id))
        rows = rows.withColumn(CHECKSUM, compute_checksum("staging"))
        # The transaction number lets only one commit of each group succeed, even if several attempts try.
        try:
            self.warehouse.append("staging", rows, txn=(f"stage-{self.run.run_id}-{index}", 1))
        except WriteConflict:
            check_lease(self.warehouse, self.run)  # raises if another run or attempt took over
            # Otherwise an older attempt woke up and staged this group; the same plan gives the same rows.
            mine = (F.col(RUN_ID) == self.run.run_id) & in_buckets(buckets)
            if not self.warehouse.read("staging").where(mine).take(1):
                raise

    def _count(self, fresh: Sequence[int]) -> dict[str, StagedCounts]:
        """Count all that the run has staged, by policy.

        Args:
            fresh: the buckets that this attempt staged.
        """
        rows = count_staged(self.warehouse, self.run, fresh)
        policies = [policy for each in self.passes for policy in each.task.exclude_seen]
        return {policy: rows.get(policy, NOTHING_STAGED) for policy in policies}


REPORTED = frozenset(PolicyReport.model_fields) & frozenset(StagedCounts._fields)


def count_staged(warehouse: Warehouse, run: Run, fresh: Sequence[int]) -> dict[str, StagedCounts]:
    """Count all that a run has staged, by policy.

    Args:
        warehouse: holds `staging`.
        run: the run whose rows are counted.
        fresh: the buckets whose pairs are counted as `fresh`.
    """
    over = F.col("anchor") != run.run_id  # an earlier run has scored the user in full
    rows = (
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
            F.sum(F.when(in_buckets(fresh), F.col("pairs")).otherwise(0)).alias("fresh"),
            F.min(F.when(F.col("fault").isNotNull(), F.struct(USER_ID, "fault"))).alias("first_fault"),
        )
        .collect()
    )
    return {row[POLICY]: StagedCounts(**{n: row[n] for n in StagedCounts._fields}) for row in rows}


def in_buckets(buckets: Sequence[int]) -> Column:
    """Whether a row belongs to one of the buckets."""
    return F.col(BUCKET).isin(list(buckets))


def _select_and_partition(rows: DataFrame, buckets: Sequence[int], tasks: int) -> DataFrame:
    """Select the users of some buckets, partitioned for both the join and scoring, so each is shuffled once.

    All tasks get about as many users, whatever the buckets, because the commit waits for the last task.
    """
    parts = max(len(buckets), TASKS_PER_CORE * tasks)
    return rows.where(in_buckets(buckets)).repartition(parts, USER_ID)


def score_lists(
    warehouse: Warehouse, users: DataFrame, scoring: ScoringPass, placement: Placement
) -> DataFrame:
    """Score users by `mapInArrow`, with the files that every host was sent.

    Args:
        warehouse: gives the types of ids.
        users: the result of `read_users`, with the columns `ENTRIES` added.
        scoring: the pass.
        placement: its profile asks Spark for GPUs if GPUs score.

    Returns:
        One row for each user and policy, with the columns `schemas.SCORED`.
    """
    ids = warehouse.settings.ids
    schema = ddl_of("staging", columns=SCORED)
    schema = schema.format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])
    task, bank, changes = scoring

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        mine = dataclasses.replace(task, device=own_device(task.device))
        night_changes = unpack_once(changes) / FILE if changes else None
        folder = shipped_folder(task.model_version)
        yield from score_users(batches, mine, folder, unpack_once(bank) / INDEX, night_changes)

    chosen = users.select(USER_ID, BUCKET, *READ, "sound", FINGERPRINT, *ENTRIES)
    return chosen.mapInArrow(score, schema, profile=placement.profile)
