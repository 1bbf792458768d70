"""Read the log of events up to the start of a night, each event once."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.schemas import DS, EVENT_ID, EVENT_TS, REPEAT, SUPERSEDED_BY
from pipelines.store.tables import Warehouse


def read_events(warehouse: Warehouse, night: str, version: int | None = None) -> DataFrame:
    """Read the events before the start of a night, each once, however many drops delivered it.

    Args:
        warehouse: the warehouse that contains the log.
        night: the date of the night (YYYY-MM-DD), which starts at midnight UTC.
        version: the Delta version of `events`; by default the newest.
    """
    start = F.to_timestamp(F.lit(night))
    return read_log(warehouse, version).where((F.col(DS) < F.lit(night)) & (F.col(EVENT_TS) < start))


def read_log(warehouse: Warehouse, version: int | None = None) -> DataFrame:
    """Read all events, each once."""
    return read_deliveries(warehouse, version).where(F.col(SUPERSEDED_BY).isNull())


def read_deliveries(warehouse: Warehouse, version: int | None = None) -> DataFrame:
    """Read all rows of `events`, including those that a later drop superseded; see docs/ingest.md."""
    return with_new_columns(warehouse.read("events", version))


def with_new_columns(rows: DataFrame) -> DataFrame:
    """Add to rows of `events` the columns that tables of earlier versions of this project lack."""
    absent: dict[str, tuple[str, Column]] = {
        EVENT_ID: ("string", F.lit(None)),
        REPEAT: ("int", F.lit(0)),
        SUPERSEDED_BY: ("date", F.lit(None)),
    }
    new = {n: value.cast(kind) for n, (kind, value) in absent.items() if n not in rows.columns}
    rows = rows.withColumns(new) if new else rows
    return rows.withColumn(REPEAT, F.coalesce(REPEAT, F.lit(0)))
