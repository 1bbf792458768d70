"""Store the rows that could not be loaded, with the reason, the value, the file and the place in it."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.ingest.read_drops import DROP_DAY, FILE, LOCATION, RAW, REASON, VALUE
from pipelines.schemas import DROP_DS, USER_ID
from pipelines.store.predicates import Predicate, both, equals, one_of
from pipelines.store.tables import Warehouse

TABLE = "events_quarantine"
NOT_LOADED = Predicate("loaded = false")


def quarantine(
    warehouse: Warehouse, source: str, days: Sequence[str], bad: DataFrame | None, *, loaded: bool
) -> None:
    """Make the table hold exactly these bad rows of a source for the drops of these days.

    Args:
        warehouse: where the table is.
        source: `events`, `items` or `users`.
        days: the days of the drops as `YYYY-MM-DD`.
        bad: the bad rows as `read_drops` returns them; None for no rows.
        loaded: whether the drops are loaded. The rows of refused drops are stored apart from the rows that
            were loaded for the same days before, and are removed once the days are loaded.
    """
    if not days:
        return
    stored = with_loaded(warehouse.read(TABLE))
    mine = (F.col("source") == source) & F.col(DROP_DS).isin([F.lit(day).cast("date") for day in days])
    where = both(equals(source=source), one_of(DROP_DS, days))
    if not loaded:
        mine, where = mine & ~F.col("loaded"), both(where, NOT_LOADED)
    if bad is None and not stored.where(mine).limit(1).count():
        return
    rows = stored.limit(0) if bad is None else bad.select(*_columns(bad, source, loaded=loaded))
    warehouse.replace(TABLE, rows, where)


def with_loaded(rows: DataFrame) -> DataFrame:
    """Fill the column `loaded`, which rows of earlier versions lack: their drops were loaded."""
    known = F.col("loaded") if "loaded" in rows.columns else F.lit(None).cast("boolean")
    return rows.withColumn("loaded", F.coalesce(known, F.lit(True)))


def _columns(bad: DataFrame, source: str, *, loaded: bool) -> list[Column]:
    user = F.col(USER_ID).cast("string") if source != "items" else F.lit(None).cast("string")
    return [
        F.col(DROP_DAY).alias(DROP_DS), F.lit(source).alias("source"), F.col(REASON).alias("reason"),
        F.col(RAW).alias("row"), F.col(FILE).alias("file"), F.col(LOCATION).alias("location"),
        F.col(VALUE).alias("value"), user.alias(USER_ID), F.lit(loaded).alias("loaded"),
    ]  # fmt: skip
