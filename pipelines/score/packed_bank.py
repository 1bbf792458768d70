"""Pack the bank and send it to every host: executors pack shards, and broadcasts carry them.

Damaged rows (not finite, of another width, or different from what was written) fail the night. Up to
`night.max_damaged_share` of them are left out instead, and listed in `bank_quarantine`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
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
from pipelines.models.bundles import scratch_folder
from pipelines.models.pinned_inputs import NightInputs
from pipelines.policies.sql import eligible_bit
from pipelines.schemas import BANK_FACTORS, CHECKSUM, DS, ITEM_ID, MODEL_VERSION, RUN_ID
from pipelines.score.broadcast_files import BroadcastFiles, BroadcastSender
from pipelines.store.frames import local_rows, persisted
from pipelines.store.leases import Run
from pipelines.store.manifests import BankManifest
from pipelines.store.predicates import equals
from pipelines.store.row_digests import compute_checksum
from pipelines.store.runs import need_manifest
from pipelines.store.session import arrow_batches_of
from pipelines.store.tables import Warehouse
from pipelines.udfs.pack_shards import SCHEMA as PACKED
from pipelines.udfs.pack_shards import pack_shards, read_stream

SHARD_BYTES = 128 << 20  # of a packed shard; a task, and briefly the driver's JVM, holds one in memory
ITEMS_PER_BATCH = 4096  # rows of the bank in one Arrow batch for a task that packs
INDEX = Path("bank.arrow")  # in the folder of the shards


class ShippedBank(NamedTuple):
    """The files of a packed bank that were sent, and the damaged items left out, with their reasons."""

    files: BroadcastFiles
    damaged: dict[Any, str]


class SentShards(NamedTuple):
    """How many candidates the sent shards hold, and the items that were left out with their reasons."""

    candidates: int
    damaged: dict[Any, str]


def ship_bank(warehouse: Warehouse, run: Run, bundle: Bundle, inputs: NightInputs, bit: int) -> ShippedBank:
    """Pack the candidates whose eligibility bit is set, and send them to every host.

    Executors pack one shard for each partition; the driver broadcasts the chunks, one after the other.

    Args:
        warehouse: holds the bank.
        run: the run that is scored.
        bundle: gives the widths of the factors.
        inputs: gives the versions of bank and bias.
        bit: the index of the policy whose candidates are packed.

    Raises:
        BundleError: more rows are damaged than `night.max_damaged_share` allows.
    """
    shape = Shape(bundle.config.links, bundle.config.hidden, bundle.config.dot)
    candidates = read_bank(warehouse, run.ds, inputs, bit)
    eligible = list(need_manifest(warehouse, run, BankManifest).eligible.values())[bit]
    wanted = -(-eligible * 4 * shape.words // (WIDTH * SHARD_BYTES))
    cut = candidates.repartitionByRange(wanted, ITEM_ID) if wanted > 1 else candidates.repartition(1)
    strict = warehouse.settings.night.strict
    sender = BroadcastSender(warehouse.spark.sparkContext)

    def pack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from pack_shards(batches, shape, strict=strict)

    empty = pa.array([], to_arrow_type(candidates.schema[ITEM_ID].dataType))
    with arrow_batches_of(warehouse.spark, ITEMS_PER_BATCH):
        packed = cut.sortWithinPartitions(ITEM_ID).mapInArrow(pack, PACKED)
        with persisted(packed, StorageLevel.DISK_ONLY) if wanted > 1 else nullcontext(packed) as shards:
            if wanted > 1:  # pack all partitions at once; the iterator alone would pack one after the other
                shards.count()
            sent = send_shards(shards.toLocalIterator(), sender, inputs.model_version, shape, empty)
    damaged, first = sent.damaged, min(sent.damaged.items(), default=None)
    refuse_damaged("candidate bank: rows", len(damaged), eligible, first, warehouse)
    if sent.candidates + len(damaged) != eligible:
        raise BundleError(
            f"candidate bank: {sent.candidates} rows and {len(damaged)} damaged ones for {eligible} eligible "
            "items: an item has several rows; build the bank again under a new --run-key"
        )
    return ShippedBank(sender.finish(), damaged)


def refuse_damaged(what: str, damaged: int, total: int, first: object, warehouse: Warehouse) -> None:
    """Fail when more rows are damaged than the settings allow.

    Args:
        what: names the rows in the message.
        damaged: number of damaged rows.
        total: number of all rows.
        first: the damaged row that the message shows.
        warehouse: gives the limit.

    Raises:
        BundleError: they are; the message names the share, the limit and the first damaged row.
    """
    limit = warehouse.settings.night.max_damaged_share
    if damaged > limit * total:
        raise BundleError(
            f"{what}: {damaged} of {total} are damaged, night.max_damaged_share is {limit:.2%}; the first: "
            f"{first}. Nothing was published; correct what is named, then build again under a new --run-key"
        )


def quarantine_items(warehouse: Warehouse, run: Run, damaged: Mapping[Any, str]) -> None:
    """Record in `bank_quarantine` which items this run leaves out, and why.

    Args:
        warehouse: holds the table.
        run: the run that leaves them out.
        damaged: the reason by item id.
    """
    if damaged or warehouse.exists("bank_quarantine"):  # an earlier attempt may have left out other items
        rows = [{RUN_ID: run.run_id, ITEM_ID: item, "reason": reason} for item, reason in damaged.items()]
        frame = local_rows(warehouse.spark, rows, warehouse.schema("bank_quarantine"))
        warehouse.replace("bank_quarantine", frame, equals(run_id=run.run_id))


def send_shards(
    rows: Iterator[Row], sender: BroadcastSender, model_version: str, shape: Shape, empty: pa.Array
) -> SentShards:
    """Send each packed shard as soon as it is read, in the order of the partitions, and then the index.

    Args:
        rows: the rows that `pack_shards` yields.
        sender: takes the files.
        model_version: the version of the bundle that the bank was built with.
        shape: widths of the factors.
        empty: an empty array of the type of item ids.
    """
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
    return SentShards(sum(shard.candidates for shard in shards), damaged)


def read_bank(warehouse: Warehouse, night: str, inputs: NightInputs, bit: int) -> DataFrame:
    """Read factors and bias of the candidates that a policy may recommend.

    Args:
        warehouse: holds bank and bias.
        night: the date of the night.
        inputs: gives the versions of bank and bias.
        bit: the index of the policy.

    Returns:
        `item_id`, the factors, `bias`, and `sound`: whether the checksum of the factors is right.
    """
    mine = F.col(MODEL_VERSION) == inputs.model_version
    bank = warehouse.read("candidate_bank", inputs.bank).where(mine)
    bank = bank.withColumn("sound", F.col(CHECKSUM) == compute_checksum("candidate_bank"))
    bias = warehouse.read("item_bias", inputs.bias).where(mine & (F.col(DS) == F.lit(night).cast("date")))
    allowed = bias.where(eligible_bit(bit) == 1).select(ITEM_ID, "bias")
    # The join starts from the bias: an item without a row in the bank is damaged, and must not vanish.
    joined = allowed.join(bank, ITEM_ID, "left")
    return joined.select(ITEM_ID, *BANK_FACTORS, "bias", "sound")
