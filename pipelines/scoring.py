"""Broadcast-score: the packed bank goes to every host once, states stream through one Arrow UDF.

Results are staged under the run, a few work units per commit; a retry takes up the units
that are missing. Nothing here is visible to readers of `recommendations`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow as pa
from pyspark import SparkFiles, StorageLevel
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_type

from lime_model.bundle import Bundle, BundleError
from lime_model.scoring.backends import choose_backend
from lime_model.scoring.bank import Shard, shard_path, write_index
from lime_model.scoring.cells import WIDTH, Shape, Stats
from pipelines.bundles import scratch_folder, ship_bundle
from pipelines.candidates import eligible_bit
from pipelines.columns import BUCKET, DS, ITEM_ID, MODEL_VERSION, POLICY, RUN_ID, USER_ID
from pipelines.leases import Run, check_lease
from pipelines.plan import WorkUnit, missing, plan_full
from pipelines.runs import Manifest, need_manifest, once
from pipelines.session import arrow_batches_of
from pipelines.settings import Policy, SettingsError
from pipelines.tables import SQL_TYPES, Warehouse
from pipelines.udfs.pack_shards import SCHEMA as PACKED
from pipelines.udfs.pack_shards import pack_shards
from pipelines.udfs.score_users import SCHEMA, ScoreTask, score_users

log = logging.getLogger(__name__)
SHARD_BYTES = 128 << 20  # packed: a task, and for a moment the driver's JVM, holds one whole
ITEMS_PER_BATCH = 4096  # of the bank on its way to a packer


@dataclass(frozen=True)
class NightInputs:
    """Delta versions and model that a night's tables were built with."""

    model: str
    model_version: str
    bank: int
    bias: int
    states: int
    memory: int
    events: int
    items: int
    users: int

    @classmethod
    def of(cls, warehouse: Warehouse, run: Run) -> NightInputs:
        """From the manifests of the two building jobs.

        Raises:
            BundleError: they used different bundles, or different versions of the log.
            MissingTable: one of them has not run.
        """
        bank = need_manifest(warehouse, run, "build_candidate_bank")
        states = need_manifest(warehouse, run, "build_link_states")
        if bank["model_version"] != states["model_version"]:
            raise BundleError(
                f"night {run.ds}: the candidate bank is of model {bank['model_version']} and the link states "
                f"are of {states['model_version']}; build both with the same bundle under a new --run-key"
            )
        v, w = bank["versions"], states["versions"]
        if v["events"] != w["events"]:
            raise BundleError(
                f"night {run.ds}: the bank was built from events at version {v['events']} and the states "
                f"from {w['events']}; build both again under a new --run-key"
            )
        return cls(
            bank["model"], bank["model_version"], v["candidate_bank"], v["item_bias"],
            w["user_link_states"], w["user_memory"], w["events"], v["items"], w["users"],
        )  # fmt: skip


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
        choice = choose_backend(night.backend, night.device)
        # One dense pass serves all policies over the same candidates.
        tasks = [
            ScoreTask(
                bundle=f"bundle-{bundle.version}",
                bank=ship_bank(warehouse, run, bundle, inputs, _bit(policies, eligible)),
                model_version=bundle.version, night=run.ds, k=night.k,
                exclude_seen={p.name: p.exclude_seen for p in policies if p.eligible == eligible},
                backend=choice.backend, device=choice.device,
            )
            for eligible in dict.fromkeys(policy.eligible for policy in policies)
        ]  # fmt: skip
        return {
            "model": inputs.model,
            "model_version": inputs.model_version,
            "k": night.k,
            "backend": choice._asdict(),
            "policies": _stage(warehouse, run, inputs, tasks),
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


def check_version(bundle: Bundle, inputs: NightInputs) -> None:
    """The bundle in the store must be the one the night was built with.

    Raises:
        BundleError: it was replaced in between.
    """
    if bundle.version != inputs.model_version:
        raise BundleError(
            f"the bundle of {inputs.model!r} is now {bundle.version} but this night was built with "
            f"{inputs.model_version}; restore it or build the night again under a new --run-key"
        )


def ship_bank(warehouse: Warehouse, run: Run, bundle: Bundle, inputs: NightInputs, bit: int) -> str:
    """Pack the candidates whose eligibility `bit` is on, send them to every host; returns the index's name.

    Executors pack, a shard per partition; the driver writes them one after the other.
    """
    name = f"bank-{run.run_id}-{bit}-{inputs.model_version}.arrow"
    path, config = Path(scratch_folder()) / name, bundle.config
    shape = Shape(config.links, config.hidden, config.dot)
    candidates = read_bank(warehouse, run.ds, inputs, bit)
    most = need_manifest(warehouse, run, "build_candidate_bank")["candidates"]
    wanted = -(-most * 4 * shape.words // (WIDTH * SHARD_BYTES))
    cut = candidates.repartitionByRange(wanted, ITEM_ID) if wanted > 1 else candidates.repartition(1)

    def pack(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        yield from pack_shards(batches, shape)

    empty = pa.array([], to_arrow_type(candidates.schema[ITEM_ID].dataType))
    with arrow_batches_of(warehouse.spark, ITEMS_PER_BATCH):
        packed = cut.sortWithinPartitions(ITEM_ID).mapInArrow(pack, PACKED)
        if wanted > 1:  # all at once: the iterator alone would run one partition after the other
            packed = packed.persist(StorageLevel.DISK_ONLY)
        try:
            if wanted > 1:
                packed.count()
            files = collect_shards(packed.toLocalIterator(), path, inputs.model_version, shape, empty)
        finally:
            packed.unpersist()
    for file in files:
        warehouse.spark.sparkContext.addFile(str(file))
    return name


def collect_shards(
    rows: Iterator[Row], path: Path, model_version: str, shape: Shape, empty: pa.Array
) -> list[Path]:
    """Write packed shards as they come, in the order of their partitions; returns the bank's files."""
    ids: list[pa.Array] = []
    shards: list[Shard] = []
    for row in rows:
        if row["chunk"] == 0:
            about = json.loads(row["about"])
            shards.append(Shard(about["candidates"], Stats.from_json(about["stats"])))
            ids.append(pa.ipc.open_stream(row["ids"]).read_all()["item_id"].combine_chunks())
        with shard_path(path, len(shards) - 1).open("wb" if row["chunk"] == 0 else "ab") as file:
            file.write(row["words"])
    write_index(path, model_version, shape, [empty, *ids], shards)
    return [path, *(shard_path(path, number) for number in range(len(shards)))]


def read_bank(warehouse: Warehouse, night: str, inputs: NightInputs, bit: int) -> DataFrame:
    """Factors and bias of the candidates that a policy may recommend."""
    mine = F.col(MODEL_VERSION) == inputs.model_version
    bank = warehouse.read("candidate_bank", inputs.bank).where(mine)
    bias = warehouse.read("item_bias", inputs.bias).where(mine & (F.col(DS) == F.lit(night).cast("date")))
    allowed = bias.where(eligible_bit(bit) == 1).select(ITEM_ID, "bias")
    joined = bank.join(allowed, ITEM_ID, "inner")
    return joined.select(ITEM_ID, "link_weights", "head_input", "dot", "bias")


def read_users(warehouse: Warehouse, inputs: NightInputs) -> DataFrame:
    """States with memories, one row per user."""
    mine = F.col(MODEL_VERSION) == inputs.model_version
    states = warehouse.read("user_link_states", inputs.states).where(mine)
    memory = warehouse.read("user_memory", inputs.memory).where(mine)
    return states.select(USER_ID, BUCKET, "as_of", "event_count", "last_event_ts", "state", "codes").join(
        memory.select(USER_ID, "items", "last_ts", "features"), USER_ID, "inner"
    )


def _stage(
    warehouse: Warehouse, run: Run, inputs: NightInputs, tasks: Sequence[ScoreTask]
) -> dict[str, Manifest]:
    """Stage the units that are missing, all policies of a unit in one commit; returns counts by policy."""
    started = time.monotonic()
    mine = F.col(RUN_ID) == run.run_id
    staged = warehouse.read("staging").where(mine).select(BUCKET).distinct().collect()
    plan = plan_full(warehouse.settings.night.buckets)
    groups = plan.commits(warehouse.settings.night.units_per_commit)
    users = read_users(warehouse, inputs)
    left = missing(groups, (row[0] for row in staged))
    for index in left:
        check_lease(warehouse, run)
        frames = [score_units(warehouse, users, groups[index], task) for task in tasks]
        rows = reduce(DataFrame.unionByName, frames).withColumn(RUN_ID, F.lit(run.run_id))
        # The transaction number lets each group in once, whoever else is retrying it.
        warehouse.append("staging", rows, txn=(f"stage-{run.run_id}-{index}", 1))
        log.info("night %s: staged commit %d of %d", run.run_id, index + 1, len(groups))
    short = F.sum((F.col("shortfall") > 0).cast("int"))
    just_now = F.col(BUCKET).isin([unit.bucket for index in left for unit in groups[index]])
    fresh = F.sum(F.when(just_now, F.col("pairs")).otherwise(0))
    totals = warehouse.read("staging").where(mine).groupBy(POLICY)
    counted = totals.agg(F.count("*"), F.sum("pairs"), short, fresh).collect()
    seconds = time.monotonic() - started
    rows_by_policy = {row[0]: row[1:4] for row in counted}
    common = {
        "plan": plan.why,
        "units": len(plan.units),
        "commits_reused": len(groups) - len(left),
        "seconds": round(seconds, 3),  # of all policies together, like the rate
        "pairs_per_second": round(sum(row[4] for row in counted) / seconds),
    }
    policies = [policy for task in tasks for policy in task.exclude_seen]
    counts = {policy: rows_by_policy.get(policy, (0, 0, 0)) for policy in policies}
    names = ("users", "pairs", "users_with_shortfall")
    return {policy: {**common, **dict(zip(names, row, strict=True))} for policy, row in counts.items()}


def score_units(
    warehouse: Warehouse, users: DataFrame, units: Sequence[WorkUnit], task: ScoreTask
) -> DataFrame:
    """Lists of the users of these units by `mapInArrow`."""
    buckets = [unit.bucket for unit in units]
    ids = warehouse.settings.ids
    schema = SCHEMA.format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])

    def score(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        yield from score_users(batches, task, Path(SparkFiles.getRootDirectory()))

    mine = users.where(F.col(BUCKET).isin(buckets)).repartition(len(buckets), BUCKET)
    return mine.select(USER_ID, BUCKET, "state", "codes", "items", "last_ts", "features").mapInArrow(
        score, schema
    )
