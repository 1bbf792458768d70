"""Read what models are trained on: the log before a cut-off, sorted by Spark, and the items and users."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Observation
from pyspark.sql import functions as F

from lime_model.errors import TrainingError
from lime_model.train.fit import TrainingSource
from lime_model.train.mapped_log import Pieces, whole_users
from pipelines.models.bundles import fetch_folder
from pipelines.schemas import EVENT_TS, HISTORY_ORDER, ITEM_ID, LABEL, USER_ID
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_events
from pipelines.store.frames import sorted_arrow
from pipelines.store.storage import drop_folder, list_names
from pipelines.store.tables import Warehouse

FETCHED = "log-before-"  # prefix of temporary folders next to the bundles, from which a log is fetched


def read_source(warehouse: Warehouse, cutoff: str, known: str | None = None) -> TrainingSource:
    """Read the log before a cut-off, the items and the users, once for all models.

    Args:
        warehouse: the warehouse that contains the tables.
        cutoff: the day (YYYY-MM-DD) from which on no event is read.
        known: the night (YYYY-MM-DD) whose items and users are read; by default `cutoff`.

    Returns:
        The source; its log is on the driver's disk, its items and users are in memory.

    Raises:
        TrainingError: the fetched log is incomplete; see `fetch_log`.
    """
    return TrainingSource(
        fetch_log(warehouse, cutoff),
        sorted_arrow(read_entity(warehouse, "items", known or cutoff), ITEM_ID),
        sorted_arrow(read_entity(warehouse, "users", known or cutoff), USER_ID),
    )


def fetch_log(warehouse: Warehouse, cutoff: str) -> Pieces:
    """Sort the log before `cutoff` by Spark, and fetch it as Parquet files, which are read piece by piece.

    Raises:
        TrainingError: the fetched files have more or fewer rows than Spark wrote.
    """
    log = read_events(warehouse, cutoff, warehouse.version("events"))
    log = log.select(USER_ID, *HISTORY_ORDER, LABEL).withColumn(EVENT_TS, F.unix_micros(EVENT_TS))
    ordered = log.repartitionByRange(USER_ID).sortWithinPartitions(USER_ID, *HISTORY_ORDER)
    uri = f"{warehouse.settings.bundles.rstrip('/')}/{FETCHED}{cutoff}-{uuid.uuid4().hex}"
    written = Observation()
    try:
        ordered.observe(written, F.count(F.lit(1)).alias("rows")).write.parquet(uri)
        folder = fetch_folder(warehouse.spark, uri)
    except Exception:  # excludes KeyboardInterrupt in a call to the JVM, which then answers no other call
        drop_folder(warehouse.spark, uri)
        raise
    drop_folder(warehouse.spark, uri)
    files = sorted(folder.glob("part-*.parquet"))  # in the order of their users
    found = sum(pq.read_metadata(file).num_rows for file in files)
    if found != written.get["rows"]:
        raise TrainingError(
            f"Spark wrote {written.get['rows']} events to {uri} and {found} came back: bundles must be "
            "storage that executors and driver share"
        )

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches():
                yield _timed(batch)

    return lambda: whole_users(batches())


def drop_fetched(warehouse: Warehouse) -> None:
    """Remove the logs that a killed training left; a training that is fetching its log fails."""
    root = warehouse.settings.bundles.rstrip("/")
    for name in list_names(warehouse.spark, root):
        if name.startswith(FETCHED):
            drop_folder(warehouse.spark, f"{root}/{name}")


def _timed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Turn microseconds back into timestamps, as the ones that Spark writes to Parquet have 96 bits."""
    times = batch.column(EVENT_TS).cast(pa.timestamp("us", tz="UTC"))
    return batch.set_column(batch.schema.get_field_index(EVENT_TS), EVENT_TS, times)
