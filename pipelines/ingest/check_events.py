"""Check the rows of event drops, choose one of repeated rows, and expand rows that count an event."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.ingest.load_drops import DUPLICATE
from pipelines.ingest.read_drops import DROP_DAY, FILE, KEPT, LOCATION, REASON, VALUE
from pipelines.ingest.source_columns import COUNT, KEY
from pipelines.schemas import (
    DROP_DS,
    DS,
    EVENT_ID,
    EVENT_KEY,
    EVENT_TS,
    EVENT_TYPE,
    LABEL,
    REPEAT,
    SESSION_ID,
)
from pipelines.settings.settings import Settings

MOST_TIMES = 1000  # how often an event of one row may have happened


def identity(settings: Settings) -> list[str]:
    """Return the columns that distinguish events: the day, and `ingest.events.key` or all of an event's."""
    return [DS, *([EVENT_ID] if settings.ingest.events.key else EVENT_KEY), REPEAT]


def check_events(rows: DataFrame, settings: Settings) -> DataFrame:
    """Add the event's day and id, `DUPLICATE`, and the reasons that need more than one value."""
    ingest = settings.ingest
    local_day = F.to_date(F.from_utc_timestamp(EVENT_TS, ingest.day_zone))
    counted = F.col(COUNT) if ingest.events.count else F.lit(1).cast("long")
    key = [F.col(f"{KEY}{i}").alias(name) for i, name in enumerate(ingest.events.key)]
    reason = F.coalesce(
        F.col(REASON),
        F.when(local_day > F.col(DROP_DAY), F.lit("future_timestamp")),
        F.when(local_day < F.date_sub(DROP_DAY, ingest.late_days), F.lit("too_late")),
        F.when(~counted.between(1, MOST_TIMES), F.lit("count_out_of_range")),
    )
    checked = rows.withColumns(
        {
            DROP_DS: F.col(DROP_DAY),
            EVENT_TYPE: F.coalesce(EVENT_TYPE, F.lit(ingest.default_event_type)),
            SESSION_ID: F.coalesce(SESSION_ID, F.lit("")),
            VALUE: F.coalesce(
                F.col(VALUE), F.when(F.col(REASON).isNull() & reason.isNotNull(), _shown(counted))
            ),
            REASON: reason,
            DS: F.to_date(EVENT_TS),
            COUNT: counted,
            EVENT_ID: F.to_json(F.struct(*key)) if key else F.lit(None).cast("string"),
        }
    )
    return _mark_duplicates(checked, settings).drop(*(f"{KEY}{i}" for i in range(len(key))))


def _shown(counted: Column) -> Column:
    """Show the wrong value of a row whose values could all be read: its time or its count."""
    return F.when(~counted.between(1, MOST_TIMES), counted.cast("string")).otherwise(
        F.col(EVENT_TS).cast("string")
    )


def _mark_duplicates(rows: DataFrame, settings: Settings) -> DataFrame:
    """Choose one of the rows of a drop that are the same event; rows that contradict it become bad."""
    if settings.ingest.events.identical == "each":
        return rows.withColumn(DUPLICATE, F.lit(False))
    columns = [name for name in identity(settings) if name != REPEAT]
    good = F.col(KEPT) & F.col(REASON).isNull()
    # Rows that are not good are spread by their position, as their keys may all be null.
    spread = F.when(good, F.xxhash64(*columns)).otherwise(F.xxhash64(FILE, LOCATION))
    says = [F.desc_nulls_last(LABEL), F.desc(COUNT), *(F.desc_nulls_last(name) for name in EVENT_KEY)]
    of_event = Window.partitionBy(good, spread, DROP_DS, *columns).orderBy(*says, FILE, LOCATION)
    first = F.struct(LABEL, COUNT, *EVENT_KEY)
    repeats = good & (F.row_number().over(of_event) > 1)
    marked = rows.withColumns({DUPLICATE: repeats, "_first": F.first(first).over(of_event)})
    label = F.col("_first").getField(LABEL)
    differs = F.col(LABEL).isNotNull() & ~F.col(LABEL).eqNullSafe(label)
    for name in (COUNT, *EVENT_KEY):
        differs = differs | ~F.col(name).eqNullSafe(F.col("_first").getField(name))
    contradicts = F.col(DUPLICATE) & differs
    said = F.to_json(F.struct(*EVENT_KEY, LABEL, F.col(COUNT).alias("count")))
    return marked.withColumns(
        {
            VALUE: F.when(contradicts, said).otherwise(F.col(VALUE)),
            REASON: F.when(contradicts, F.lit("duplicate_key")).otherwise(F.col(REASON)),
            DUPLICATE: F.col(DUPLICATE) & ~differs,
        }
    ).drop("_first")


def expand(good: DataFrame, settings: Settings) -> DataFrame:
    """Make a row for each time that an event happened; `REPEAT` numbers them from 0."""
    times = good.withColumn("_time", F.explode(F.sequence(F.lit(1), F.col(COUNT).cast("int"))))
    if settings.ingest.events.identical == "each":
        columns = [name for name in identity(settings) if name != REPEAT]
        order = [F.desc_nulls_last(LABEL), F.col(FILE), F.col(LOCATION), F.col("_time")]
        number = F.row_number().over(Window.partitionBy(DROP_DS, *columns).orderBy(*order))
    else:
        number = F.col("_time")
    return times.withColumn(REPEAT, (number - 1).cast("int"))
