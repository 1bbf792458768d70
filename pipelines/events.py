"""Ingest of the history log: drops to `events`, bad rows to `events_quarantine`.

Loading a day again changes nothing; loading a corrected drop leaves the table as if only
the corrected one had ever come. A late event goes to its own day.
"""

from __future__ import annotations

from collections.abc import Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.columns import (
    DROP_DS,
    DS,
    EVENT_KEY,
    EVENT_TS,
    EVENT_TYPE,
    ITEM_ID,
    LABEL,
    SESSION_ID,
    USER_ID,
)  # fmt: skip
from pipelines.drops import FILE, RAW, REASON, DropError, Wanted, explain_read_errors, read_drop
from pipelines.runs import Manifest
from pipelines.settings import Settings
from pipelines.tables import SQL_TYPES, Warehouse, count_cases, writing


def wanted_events(settings: Settings) -> dict[str, Wanted]:
    """Columns of an event and where the drop has them."""
    ids, names = settings.ids, settings.ingest.events
    types = {
        USER_ID: (SQL_TYPES[ids.user_id], True),
        ITEM_ID: (SQL_TYPES[ids.item_id], True),
        EVENT_TS: ("timestamp", True),
        EVENT_TYPE: ("string", False),
        SESSION_ID: ("string", False),
        LABEL: ("double", False),
    }
    return {name: Wanted(sql, names.get(name, name), need) for name, (sql, need) in types.items()}


def ingest_events(warehouse: Warehouse, days: Sequence[str]) -> Manifest:
    """Load the drops of `days`; returns counts.

    Raises:
        DropError: see `read_drop`; or more than `ingest.max_rejected_share` of the rows are
            bad (they are in quarantine then, and no event was committed).
    """
    settings = warehouse.settings
    checked = None
    try:
        drop = read_drop(warehouse.spark, settings, "events", days, wanted_events(settings))
        checked = mark_clashes(warehouse, check_events(drop.rows, settings), days).persist()
        counts = {row[REASON]: row["count"] for row in checked.groupBy(REASON).count().collect()}
        rejected = {reason: count for reason, count in counts.items() if reason}
        bad = checked.where(F.col(REASON).isNotNull()) if rejected else None
        quarantine(warehouse, "events", days, bad)
        refuse_bad_share("events", counts, settings.ingest.max_rejected_share)
        good = checked.where(F.col(REASON).isNull())
        changes = _commit(warehouse, good, counts.get(None, 0), days)
    except (Py4JJavaError, PySparkException) as error:
        raise explain_read_errors(error, "events") from error
    finally:
        if checked is not None:
            checked.unpersist()
    return {"days": [days[0], days[-1]], "extra_columns": drop.extra, "rejected": rejected, **changes}


def check_events(rows: DataFrame, settings: Settings) -> DataFrame:
    """Adds the event's day and the reasons that need more than one column."""
    day = F.to_date(EVENT_TS)
    reason = F.coalesce(
        F.col(REASON),
        F.when(day > F.col(DROP_DS), F.lit("future_timestamp")),
        F.when(day < F.date_sub(DROP_DS, settings.ingest.late_days), F.lit("too_late")),
    )
    keyed = rows.withColumns(
        {
            EVENT_TYPE: F.coalesce(EVENT_TYPE, F.lit(settings.ingest.default_event_type)),
            SESSION_ID: F.coalesce(SESSION_ID, F.lit("")),
            REASON: reason,
            DS: day,
        }
    )
    # Good rows come first in a key: a bad one must not push a good one out. Bad ones are spread by
    # their text: their keys may all be null.
    good = F.col(REASON).isNull()
    spread = F.when(good, F.xxhash64(*EVENT_KEY)).otherwise(F.xxhash64(RAW))
    key = Window.partitionBy(spread, *EVENT_KEY).orderBy(F.col(REASON).isNotNull(), DROP_DS, FILE, LABEL)
    duplicate = F.when(good & (F.row_number().over(key) > 1), F.lit("duplicate_key"))
    return keyed.withColumn(REASON, F.coalesce(REASON, duplicate)).select(
        USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, SESSION_ID, LABEL, DROP_DS, DS, REASON, RAW, FILE
    )


def quarantine(warehouse: Warehouse, source: str, days: Sequence[str], bad: DataFrame | None) -> None:
    """Replace the quarantined rows of these drops; nothing is lost, a reload does not pile up."""
    # No BETWEEN: Delta 4.4 fails to resolve it in replaceWhere on Spark 4.2.
    where = f"source = '{source}' AND {DROP_DS} >= '{days[0]}' AND {DROP_DS} <= '{days[-1]}'"
    stored = warehouse.read("events_quarantine")
    if bad is None and not stored.where(where).limit(1).count():
        return
    rows = stored.limit(0) if bad is None else bad.withColumn("source", F.lit(source))
    warehouse.replace("events_quarantine", rows, where)


def refuse_bad_share(source: str, counts: dict[str | None, int], limit: float) -> None:
    """Fail when too many rows of a drop are bad.

    Raises:
        DropError: naming the share, the limit and the reasons.
    """
    total = sum(counts.values())
    bad = {reason: count for reason, count in counts.items() if reason}
    share = sum(bad.values()) / total if total else 0.0
    if share > limit:
        raise DropError(
            f"{source}: {share:.2%} of {total} rows are bad, ingest.max_rejected_share is {limit:.2%}: "
            f"{bad}. They are in events_quarantine; repair the drop or raise the limit. "
            "Nothing else was committed"
        )


def read_events(warehouse: Warehouse, night: str, version: int | None = None) -> DataFrame:
    """The log as night `night` may see it: events before its start, nothing later."""
    start = F.to_timestamp(F.lit(night))
    return warehouse.read("events", version).where((F.col(DS) < F.lit(night)) & (F.col(EVENT_TS) < start))


def _window(settings: Settings, days: Sequence[str]) -> Column:
    """Partitions that drops of `days` can touch."""
    first = F.date_sub(F.lit(days[0]).cast("date"), settings.ingest.late_days)
    return F.col(DS).between(first, F.lit(days[-1]).cast("date"))


def mark_clashes(warehouse: Warehouse, checked: DataFrame, days: Sequence[str]) -> DataFrame:
    """A good row whose key another drop has delivered already is a duplicate."""
    if not warehouse.exists("events"):
        return checked
    foreign = ~F.col(DROP_DS).between(*(F.lit(day).cast("date") for day in (days[0], days[-1])))
    stored = warehouse.read("events").where(_window(warehouse.settings, days) & foreign)
    keys = stored.select(*(F.col(name).alias(f"_{name}") for name in EVENT_KEY))
    same = [F.col(name) == F.col(f"_{name}") for name in EVENT_KEY]
    duplicate = F.when(F.col(f"_{USER_ID}").isNotNull(), F.lit("duplicate_key"))
    marked = checked.join(keys, same, "left").withColumn(REASON, F.coalesce(REASON, duplicate))
    return marked.select(*checked.columns)


def _commit(warehouse: Warehouse, good: DataFrame, count: int, days: Sequence[str]) -> Manifest:
    """Make the table hold exactly the `count` rows of `good` for these drops; a no-op writes no commit."""
    names = warehouse.schema("events").names
    rows = good.select(*names)
    if not warehouse.exists("events"):
        version = warehouse.replace("events", rows.repartition(DS), "true")
        return {"version": version, "inserted": count, "updated": 0, "deleted": 0}
    ours = F.col(DROP_DS).between(*(F.lit(day).cast("date") for day in (days[0], days[-1])))
    stored = warehouse.read("events").where(_window(warehouse.settings, days) & ours).select(*names)
    changes = _compare(rows, stored)
    if not any(changes.values()):
        return {"version": warehouse.version("events"), **changes}
    if changes["deleted"] == changes["updated"] == 0:
        fresh = rows.join(stored, list(EVENT_KEY), "left_anti")
        warehouse.append("events", fresh.repartition(DS))
    else:
        _merge(warehouse, rows, days)
    return {"version": warehouse.version("events"), **changes}


def _compare(rows: DataFrame, stored: DataFrame) -> dict[str, int]:
    """How many keys come, go and change their label, day or drop, in one pass."""
    new, old = rows.withColumn("_new", F.lit(1)), stored.withColumn("_old", F.lit(1))
    payload = [name for name in rows.columns if name not in EVENT_KEY]
    for name in payload:
        old = old.withColumnRenamed(name, f"_old_{name}")
    both = new.join(old, list(EVENT_KEY), "full_outer")
    differs = F.lit(False)
    for name in payload:
        differs = differs | ~F.col(name).eqNullSafe(F.col(f"_old_{name}"))
    here, there = F.col("_new").isNotNull(), F.col("_old").isNotNull()
    cases = {"inserted": here & ~there, "updated": here & there & differs, "deleted": ~here & there}
    return count_cases(both, cases)


def _merge(warehouse: Warehouse, rows: DataFrame, days: Sequence[str]) -> None:
    same = " AND ".join(f"t.{name} = s.{name}" for name in (DS, *EVENT_KEY))
    ours = f"t.{DROP_DS} BETWEEN DATE'{days[0]}' AND DATE'{days[-1]}'"
    early = f"t.{DS} >= date_sub(DATE'{days[0]}', {warehouse.settings.ingest.late_days})"
    merge = (
        warehouse.delta("events")
        .alias("t")
        .merge(rows.alias("s"), f"{same} AND {ours}")
        .whenMatchedUpdateAll(f"NOT (t.{LABEL} <=> s.{LABEL} AND t.{DROP_DS} <=> s.{DROP_DS})")
        .whenNotMatchedInsertAll()
        .whenNotMatchedBySourceDelete(f"{ours} AND {early} AND t.{DS} <= DATE'{days[-1]}'")
    )
    with writing("events"):
        merge.execute()
