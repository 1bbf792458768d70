"""Loading the log: drops to `events`, bad rows to `events_quarantine`.

The table holds what each day's drop said when it was last delivered. An event that several drops deliver
counts once, as the newest of them has it; the rows of the others are kept and marked with the drop that
supersedes them, so that a correction of any drop, in any order, leaves what loading the same drops from
nothing would leave.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.ingest.ledger import note_loaded
from pipelines.ingest.load_drops import DUPLICATE, load_drops
from pipelines.ingest.read_drops import DROP_DAY, FILE, KEPT, LOCATION, REASON, VALUE
from pipelines.ingest.wanted_columns import COUNT, KEY, want_events
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
    SUPERSEDED_BY,
)  # fmt: skip
from pipelines.settings.settings import Settings
from pipelines.store.event_log import read_deliveries, with_new_columns
from pipelines.store.frames import count_cases, local_rows
from pipelines.store.manifests import SourceReport
from pipelines.store.predicates import EVERY_ROW
from pipelines.store.progress import watch
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable, writing

MOST_TIMES = 1000  # that a row may say its event happened
CHANGES = ("inserted", "updated", "deleted")


def ingest_events(warehouse: Warehouse, days: Sequence[str]) -> SourceReport:
    """Load the drops of `days`; returns counts.

    Raises:
        DropError: naming every fault of these drops; no event was committed.
    """
    settings = warehouse.settings
    wanted = want_events(warehouse.spark, settings)
    loaded = load_drops(warehouse, wanted, days, lambda rows: check_events(rows, settings))
    try:
        with watch(warehouse.spark.sparkContext, "events: writing"):
            changes = _commit(warehouse, expand(loaded.good, settings), loaded.days)
    finally:
        loaded.rows.unpersist()
    note_loaded(warehouse, "events", loaded.noted, loaded.days)
    return loaded.report.model_copy(update=changes)


def identity(settings: Settings) -> list[str]:
    """Columns that tell one event from another: those of `ingest.events.key` within a day, or all of them."""
    return [DS, *([EVENT_ID] if settings.ingest.events.key else EVENT_KEY), REPEAT]


def check_events(rows: DataFrame, settings: Settings) -> DataFrame:
    """Adds the event's day and id, `DUPLICATE`, and the reasons that need more than one value."""
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
    """What is wrong with a row whose values could all be read: its time, or its count."""
    return F.when(~counted.between(1, MOST_TIMES), counted.cast("string")).otherwise(
        F.col(EVENT_TS).cast("string")
    )


def _mark_duplicates(rows: DataFrame, settings: Settings) -> DataFrame:
    """Of rows of one drop that are one event, one is loaded; rows that contradict it are bad."""
    if settings.ingest.events.identical == "each":
        return rows.withColumn(DUPLICATE, F.lit(False))
    columns = [name for name in identity(settings) if name != REPEAT]
    good = F.col(KEPT) & F.col(REASON).isNull()
    # Other rows are spread by their place: their keys may all be null.
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
    """Rows of the table: one for each time that the event happened, numbered by `REPEAT`."""
    times = good.withColumn("_time", F.explode(F.sequence(F.lit(1), F.col(COUNT).cast("int"))))
    if settings.ingest.events.identical == "each":
        columns = [name for name in identity(settings) if name != REPEAT]
        order = [F.desc_nulls_last(LABEL), F.col(FILE), F.col(LOCATION), F.col("_time")]
        number = F.row_number().over(Window.partitionBy(DROP_DS, *columns).orderBy(*order))
    else:
        number = F.col("_time")
    return times.withColumn(REPEAT, (number - 1).cast("int"))


def supersede(rows: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Mark the rows of events that a later drop delivers, too."""
    newest = F.max(DROP_DS).over(Window.partitionBy(*columns))
    return rows.withColumn(SUPERSEDED_BY, F.when(F.col(DROP_DS) < newest, newest))


def _commit(warehouse: Warehouse, good: DataFrame, days: Sequence[str]) -> dict[str, int]:
    """Make the table hold exactly `good` for the drops of `days`; writes nothing where nothing changes."""
    columns, names = identity(warehouse.settings), warehouse.schema("events").names
    new = good.withColumn(SUPERSEDED_BY, F.lit(None).cast("date")).select(*names)
    if not warehouse.exists("events"):
        return _write_first(warehouse, supersede(new, columns))
    _check_key(warehouse)
    stored = read_deliveries(warehouse).select(*names)
    mine = stored.where(_of_days(days))
    touched = new.select(*columns).unionByName(mine.select(*columns)).distinct().persist()
    first, last = touched.agg(F.min(DS), F.max(DS)).collect()[0]
    counts = dict.fromkeys((*CHANGES, "superseded"), 0)
    if days and first is not None:
        others = stored.where(~_of_days(days) & F.col(DS).between(F.lit(first), F.lit(last)))
        others = others.join(touched, columns, "left_semi").select(*names)
        wanted = supersede(new.unionByName(others), columns)
        changes = _compare(wanted, mine.unionByName(others), columns).persist()
        counts = _count(changes, days)
        _write(warehouse, changes, counts, columns, (first, last))
        changes.unpersist()
    touched.unpersist()
    return {"version": warehouse.version("events"), **counts}


def _of_days(days: Sequence[str]) -> Column:
    """Rows that the drops of these days delivered."""
    return F.col(DROP_DS).isin([F.lit(day).cast("date") for day in days])


def _count(changes: DataFrame, days: Sequence[str]) -> dict[str, int]:
    """Rows that change, and rows of these drops that a later drop supersedes."""
    later = _of_days(days) & F.col(SUPERSEDED_BY).isNotNull() & (F.col("_change") != "deleted")
    return count_cases(changes, {**{n: F.col("_change") == n for n in CHANGES}, "superseded": later})


def _write_first(warehouse: Warehouse, rows: DataFrame) -> dict[str, int]:
    """Make the table."""
    rows = rows.repartition(DS).persist()
    counts = count_cases(rows, {"inserted": F.lit(1), "superseded": F.col(SUPERSEDED_BY).isNotNull()})
    version = warehouse.replace("events", rows, EVERY_ROW)
    rows.unpersist()
    return {"version": version, **dict.fromkeys(CHANGES, 0), **counts}


def _check_key(warehouse: Warehouse) -> None:
    """Refuse to mix events that are distinguished in different ways.

    Raises:
        MissingTable: the settings' key is not the one that the stored events were loaded with.
    """
    key = warehouse.settings.ingest.events.key
    other = F.col(EVENT_ID).isNotNull()
    if key:
        named = F.json_object_keys(EVENT_ID) == F.array(*map(F.lit, key))
        other = ~F.coalesce(named, F.lit(False))
    if read_deliveries(warehouse).where(other).take(1):
        raise MissingTable(
            f"ingest.events.key is {key}, and the events in the warehouse "
            "were loaded with another key; restore it, or load every drop again into a new warehouse"
        )


def _compare(wanted: DataFrame, stored: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Rows as wanted (or, of those to delete, as stored), with what becomes of them in `_change`."""
    keys = [*columns, DROP_DS]
    payload = [name for name in wanted.columns if name not in keys]
    old = stored.select(*keys, F.struct(*payload).alias("_old"))
    new = wanted.select(*keys, F.struct(*payload).alias("_new"))
    both = new.join(old, keys, "full_outer")
    change = (
        F.when(F.col("_old").isNull(), F.lit("inserted"))
        .when(F.col("_new").isNull(), F.lit("deleted"))
        .when(~F.col("_new").eqNullSafe(F.col("_old")), F.lit("updated"))
        .otherwise(F.lit("kept"))
    )
    row = F.coalesce("_new", "_old")
    return both.select(*keys, *(row.getField(name).alias(name) for name in payload), change.alias("_change"))


def _write(
    warehouse: Warehouse,
    changes: DataFrame,
    counts: dict[str, int],
    columns: Sequence[str],
    days: tuple[object, object],
) -> None:
    if not any(counts[name] for name in CHANGES):
        return
    changed, names = changes.where(F.col("_change") != "kept"), warehouse.schema("events").names
    if not counts["deleted"] and not counts["updated"]:
        warehouse.append("events", changed.select(*names).repartition(DS))
        return
    if with_new_columns(warehouse.read("events")).columns != warehouse.read("events").columns:
        warehouse.append("events", local_rows(warehouse.spark, [], warehouse.schema("events")))  # adds them
    target, source = F.col, F.col
    same = target(f"t.{DS}").between(F.lit(days[0]), F.lit(days[1]))
    for name in (*columns, DROP_DS):
        stored = F.coalesce(target("t.repeat"), F.lit(0)) if name == REPEAT else target(f"t.{name}")
        same = same & (stored == source(f"s.{name}"))
    values: dict[str, str | Column] = {name: F.col(f"s.{name}") for name in names}
    merge = (
        warehouse.delta("events").alias("t").merge(changed.alias("s"), same)
        .whenMatchedDelete(F.col("s._change") == "deleted")
        .whenMatchedUpdate(set=values)
        .whenNotMatchedInsert(values=values)
    )  # fmt: skip
    with writing("events"):
        merge.execute()
