"""The packed bank on its way to every host: executors pack shards, broadcasts carry them (parcels.py).

Rows that are damaged (not finite, of another width, or not what was written) fail the night,
or are left out of it and listed in `bank_quarantine`, up to `night.max_damaged_share`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_type

from lime_model.bundle import Bundle, BundleError
from lime_model.scoring.bank import Shard, shard_path, write_index
from lime_model.scoring.cells import WIDTH, Shape, Stats
from pipelines.build.candidate_bank import FACTORS, eligible_bit
from pipelines.models.bundles import scratch_folder
from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.broadcast_files import BroadcastFiles, BroadcastSender
from pipelines.store.leases import Run
from pipelines.store.predicates import equals
from pipelines.store.row_digests import compute_checksum
from pipelines.store.runs import need_manifest
from pipelines.store.schemas import CHECKSUM, DS, ITEM_ID, MODEL_VERSION, RUN_ID
from pipelines.store.session import arrow_batches_of
from pipelines.store.tables import Warehouse, local_rows
from pipelines.udfs.pack_shards import SCHEMA as PACKED
from pipelines.udfs.pack_shards import pack_shards, read_stream

SHARD_BYTES = 128 << 20  # packed: a task, and for a moment the driver's JVM, holds one whole
ITEMS_PER_BATCH = 4096  # of the bank on its way to a packer


INDEX = Path("bank.arrow")  # in the parcel's folder, beside the shards


class ShippedBank(NamedTuple):
    """The bank's files on their way, and the damaged items that were left out: id -> reason."""

    parcel: BroadcastFiles
    damaged: dict[Any, str]


def ship_bank(warehouse: Warehouse, run: Run, bundle: Bundle, inputs: NightInputs, bit: int) -> ShippedBank:
    """Pack the candidates whose eligibility `bit` is on and send them to every host.

    Executors pack, a shard per partition; the driver passes the chunks on, one after the other.

    Raises:
        BundleError: more rows are damaged than `night.max_damaged_share` allows.
    """
    shape = Shape(bundle.config.links, bundle.config.hidden, bundle.config.dot)
    candidates = read_bank(warehouse, run.ds, inputs, bit)
    eligible = list(need_manifest(warehouse, run, "build_candidate_bank")["eligible"].values())[bit]
    wanted = -(-eligible * 4 * shape.words // (WIDTH * SHARD_BYTES))
    cut = candidates.repartitionByRange(wanted, ITEM_ID) if wanted > 1 else candidates.repartition(1)

    strict = warehouse.settings.night.strict
    sender = BroadcastSender(warehouse.spark.sparkContext)

    def pack(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        yield from pack_shards(batches, shape, strict=strict)

    empty = pa.array([], to_arrow_type(candidates.schema[ITEM_ID].dataType))
    with arrow_batches_of(warehouse.spark, ITEMS_PER_BATCH):
        packed = cut.sortWithinPartitions(ITEM_ID).mapInArrow(pack, PACKED)
        if wanted > 1:  # all at once: the iterator alone would run one partition after the other
            packed = packed.persist(StorageLevel.DISK_ONLY)
        try:
            if wanted > 1:
                packed.count()
            rows = packed.toLocalIterator()
            packed_rows, damaged = send_shards(rows, sender, inputs.model_version, shape, empty)
        finally:
            packed.unpersist()
    first = min(damaged.items(), default=None)
    refuse_damaged("candidate bank: rows", len(damaged), eligible, first, warehouse)
    if packed_rows + len(damaged) != eligible:
        raise BundleError(
            f"candidate bank: {packed_rows} rows and {len(damaged)} damaged ones for {eligible} eligible "
            "items: an item has several rows; build the bank again under a new --run-key"
        )
    return ShippedBank(sender.parcel(), damaged)


def refuse_damaged(what: str, damaged: int, total: int, first: object, warehouse: Warehouse) -> None:
    """Fail when more rows are damaged than the settings allow.

    Raises:
        BundleError: naming the share, the limit and the `first` of them.
    """
    limit = warehouse.settings.night.max_damaged_share
    if damaged > limit * total:
        raise BundleError(
            f"{what}: {damaged} of {total} are damaged, night.max_damaged_share is {limit:.2%}; the first: "
            f"{first}. Nothing was published; mend what is named, then build again under a new --run-key"
        )


def quarantine_items(warehouse: Warehouse, run: Run, damaged: Mapping[Any, str]) -> None:
    """Say in `bank_quarantine` which items this run leaves out, and why."""
    if damaged or warehouse.exists("bank_quarantine"):  # an earlier attempt may have left out others
        rows = [{RUN_ID: run.run_id, ITEM_ID: item, "reason": reason} for item, reason in damaged.items()]
        frame = local_rows(warehouse.spark, rows, warehouse.schema("bank_quarantine"))
        warehouse.replace("bank_quarantine", frame, equals(run_id=run.run_id))


def send_shards(
    rows: Iterator[Row], sender: BroadcastSender, model_version: str, shape: Shape, empty: pa.Array
) -> tuple[int, dict[Any, str]]:
    """Send packed shards as they come, in the order of their partitions, and their index; returns how many
    candidates they hold, and the items that were left out with their reasons."""
    ids: list[pa.Array] = []
    shards: list[Shard] = []
    damaged: dict[Any, str] = {}
    for row in rows:
        if row["chunk"] == 0:
            about = json.loads(row["about"])
            shards.append(Shard(about["candidates"], Stats.from_json(about["stats"])))
            ids.append(read_stream(row["ids"])["item_id"].combine_chunks())
            damaged |= dict(zip(*(c.to_pylist() for c in read_stream(row["damaged"]).columns), strict=True))
        sender.add(shard_path(INDEX, len(shards) - 1).name, row["words"])
    index = Path(scratch_folder()) / INDEX
    write_index(index, model_version, shape, [empty, *ids], shards)
    sender.add(INDEX.name, index.read_bytes())
    return sum(shard.candidates for shard in shards), damaged


def read_bank(warehouse: Warehouse, night: str, inputs: NightInputs, bit: int) -> DataFrame:
    """Factors and bias of the candidates that a policy may recommend; `sound`: the factors are as written."""
    mine = F.col(MODEL_VERSION) == inputs.model_version
    bank = warehouse.read("candidate_bank", inputs.bank).where(mine)
    bank = bank.withColumn("sound", F.col(CHECKSUM) == compute_checksum(FACTORS))
    bias = warehouse.read("item_bias", inputs.bias).where(mine & (F.col(DS) == F.lit(night).cast("date")))
    allowed = bias.where(eligible_bit(bit) == 1).select(ITEM_ID, "bias")
    # From the bias: an item without a row in the bank is a damaged one, not one less.
    joined = allowed.join(bank, ITEM_ID, "left")
    return joined.select(*FACTORS, "bias", "sound")
