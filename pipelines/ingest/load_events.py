"""Load the event log: drops go to `events`, bad rows to `events_quarantine`.

The table holds the rows of each day's drop as it was last delivered. An event that several drops deliver
counts once, with the values of the newest drop. The rows of the older drops are kept and marked with the drop
that supersedes them. So a correction of any drop, in any order, leaves the same table as loading all drops
into an empty warehouse.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.ingest.check_events import check_events, expand, identity
from pipelines.ingest.ledger import note_loaded
from pipelines.ingest.load_drops import Load, check_drops, load_sources
from pipelines.ingest.wanted_columns import want_events
from pipelines.schemas import (
    DROP_DS,
    DS,
    EVENT_ID,
    REPEAT,
    SUPERSEDED_BY,
)  # fmt: skip
from pipelines.store.event_log import read_deliveries, with_new_columns
from pipelines.store.frames import count_cases, local_rows
from pipelines.store.manifests import SourceReport
from pipelines.store.predicates import EVERY_ROW
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable, writing

log = logging.getLogger(__name__)

CHANGES = ("inserted", "updated", "deleted")


def ingest_events(warehouse: Warehouse, days: Sequence[str]) -> SourceReport:
    """Load the drops of `days`; return counts.

    Raises:
        DropError: the drops have faults; the message names all of them, and no event was committed.
    """
    return load_sources({"events": partial(check_event_drops, warehouse, days)})["events"]


def check_event_drops(warehouse: Warehouse, days: Sequence[str]) -> Load:
    """Check the drops of `days`; the result can commit them."""
    settings = warehouse.settings
    wanted = want_events(warehouse.spark, settings)
    drops = check_drops(warehouse, wanted, days, lambda rows: check_events(rows, settings))

    def commit() -> SourceReport:
        log.info("events: writing what has changed")
        changes = _commit(warehouse, expand(drops.good, settings), drops.days)
        note_loaded(warehouse, "events", drops.noted, drops.days)
        return drops.report.model_copy(update=changes)

    return Load(drops, commit)


def supersede(rows: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Mark the rows of events that a later drop delivers as well; `columns` distinguish events."""
    newest = F.max(DROP_DS).over(Window.partitionBy(*columns))
    return rows.withColumn(SUPERSEDED_BY, F.when(F.col(DROP_DS) < newest, newest))


def _commit(warehouse: Warehouse, good: DataFrame, days: Sequence[str]) -> dict[str, int]:
    """Make the table hold exactly `good` for the drops of `days`; write nothing where nothing changes."""
    columns, names = identity(warehouse.settings), warehouse.schema("events").names
    new = good.withColumn(SUPERSEDED_BY, F.lit(None).cast("date")).select(*names)
    if not warehouse.exists("events"):
        return _write_first(warehouse, supersede(new, columns))
    _check_key(warehouse)
    stored = read_deliveries(warehouse).select(*names)
    mine = stored.where(_of_days(days))
    touched = new.select(*columns).unionByName(mine.select(*columns)).distinct().persist()
    first, last = touched.agg(F.min(DS), F.max(DS)).collect()[0]  # days
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
    """Return a condition for the rows that the drops of these days delivered."""
    return F.col(DROP_DS).isin([F.lit(day).cast("date") for day in days])


def _count(changes: DataFrame, days: Sequence[str]) -> dict[str, int]:
    """Count the rows that change, and the rows of these drops that a later drop supersedes."""
    later = _of_days(days) & F.col(SUPERSEDED_BY).isNotNull() & (F.col("_change") != "deleted")
    return count_cases(changes, {**{n: F.col("_change") == n for n in CHANGES}, "superseded": later})


def _write_first(warehouse: Warehouse, rows: DataFrame) -> dict[str, int]:
    """Create the table."""
    rows = rows.repartition(DS).persist()
    counts = count_cases(rows, {"inserted": F.lit(1), "superseded": F.col(SUPERSEDED_BY).isNotNull()})
    version = warehouse.replace("events", rows, EVERY_ROW)
    rows.unpersist()
    return {"version": version, **dict.fromkeys(CHANGES, 0), **counts}


def _check_key(warehouse: Warehouse) -> None:
    """Refuse to mix events that different keys distinguish.

    Raises:
        MissingTable: the stored events were loaded with another key than that of the settings.
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
    """Compare the wanted and the stored rows; the column `_change` says what becomes of each row.

    Args:
        wanted: the rows that the table must hold.
        stored: the rows that it holds now.
        columns: the columns that distinguish events.

    Returns:
        The wanted rows, and the stored rows that are to be deleted.
    """
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
    """Write the changes to the table; `days` are the first and last day of the events that they touch."""
    if not any(counts[name] for name in CHANGES):
        return
    changed, names = changes.where(F.col("_change") != "kept"), warehouse.schema("events").names
    if not counts["deleted"] and not counts["updated"]:
        warehouse.append("events", changed.select(*names).repartition(DS))
        return
    stored = warehouse.read("events")
    if with_new_columns(stored).columns != stored.columns:
        # Appending no rows adds the columns that an earlier version's table lacks.
        warehouse.append("events", local_rows(warehouse.spark, [], warehouse.schema("events")))
    target, source = F.col, F.col
    same = target(f"t.{DS}").between(F.lit(days[0]), F.lit(days[1]))
    for name in (*columns, DROP_DS):
        old = F.coalesce(target("t.repeat"), F.lit(0)) if name == REPEAT else target(f"t.{name}")
        same = same & (old == source(f"s.{name}"))
    values: dict[str, str | Column] = {name: F.col(f"s.{name}") for name in names}
    merge = (
        warehouse.delta("events").alias("t").merge(changed.alias("s"), same)
        .whenMatchedDelete(F.col("s._change") == "deleted")
        .whenMatchedUpdate(set=values)
        .whenNotMatchedInsert(values=values)
    )  # fmt: skip
    with writing("events"):
        merge.execute()
