"""Load `items` and `users`: drops become versions of rows with `_valid_from` and `_valid_to`.

A row of the table is a *run*: consecutive drops that held the same row of one key. All runs together record
what every delivered drop held. So any day can be corrected in any order, even if the folders of later days
are gone, and the table equals the one that loading all drops into an empty warehouse would give.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.ingest.ledger import loaded_days, note_loaded
from pipelines.ingest.load_drops import DUPLICATE, CheckedDrops, Load, check_drops, load_sources
from pipelines.ingest.read_drops import DROP_DAY, FILE, KEPT, LOCATION, REASON, VALUE
from pipelines.ingest.wanted_columns import want_entity
from pipelines.schemas import DELIVERED_UNTIL, VALID_FROM, VALID_TO
from pipelines.store.catalogue import KEYS, Entity, entity_drop, entity_types, read_versions
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.manifests import SourceReport
from pipelines.store.tables import Warehouse

FIRST, LAST = "_first", "_last"  # positions of a run's first and last drop among all drops, from 0


class Stretch(NamedTuple):
    """Consecutive drops, by the positions of the first and the last among all drops."""

    first: int
    last: int


def ingest_entity(warehouse: Warehouse, name: Entity, days: Sequence[str]) -> SourceReport:
    """Load the drops of `days`; days may come in any order and more than once.

    Args:
        warehouse: where the tables are.
        name: `items` or `users`.
        days: the days to load as `YYYY-MM-DD`, ascending.

    Raises:
        DropError: the drops have faults; the message names all of them, and no version was committed.
    """
    return load_sources({name: partial(check_entity_drops, warehouse, name, days)})[name]


def check_entity_drops(warehouse: Warehouse, name: Entity, days: Sequence[str]) -> Load:
    """Check the drops of `days`; the result can commit them.

    Args:
        warehouse: where the tables are.
        name: `items` or `users`.
        days: the days to load as `YYYY-MM-DD`, ascending.
    """
    wanted, key = want_entity(warehouse.spark, warehouse.settings, name), KEYS[name]
    columns = list(entity_types(warehouse.settings, name))
    drops = check_drops(warehouse, wanted, days, lambda rows: _mark_duplicates(rows, key, columns))

    def commit() -> SourceReport:
        changed = bool(drops.days) and _commit(warehouse, name, _versions(drops, name, key))
        note_loaded(warehouse, name, drops.days, drops.days)
        return drops.report.model_copy(update={"changed": changed})

    return Load(drops, commit)


def _versions(drops: CheckedDrops, name: Entity, key: str) -> DataFrame:
    """Return the rows that the table must hold once the drops are loaded.

    Args:
        drops: the checked drops.
        name: `items` or `users`.
        key: the column that identifies a row.
    """
    warehouse = drops.warehouse
    stored = read_versions(warehouse, name)
    known = _known_days(warehouse, name, stored)
    every = sorted(known | set(drops.days))
    runs = _runs_of(warehouse, stored, every, sorted(known), drops.days)
    new = _place(warehouse, drops.good, every, DROP_DAY, FIRST).withColumn(LAST, F.col(FIRST))
    merged = merge_runs(runs.unionByName(new.select(*runs.columns)), key)
    absent = entity_drop(warehouse.settings, name).absent
    return _date_runs(warehouse, merged, key, every, absent == "remove").select(*stored.columns)


def _mark_duplicates(rows: DataFrame, key: str, columns: Sequence[str]) -> DataFrame:
    """Choose one of the rows of a drop that share a key; rows that contradict it become bad."""
    good = F.col(KEPT) & F.col(REASON).isNull()
    spread = F.when(good, F.xxhash64(key)).otherwise(F.xxhash64(FILE, LOCATION))
    features = F.struct(*(name for name in columns if name != key), F.lit(0).alias("_no_features"))
    text = F.to_json(features)
    of_key = Window.partitionBy(good, spread, DROP_DAY, key).orderBy(F.desc(text), FILE, LOCATION)
    repeats = good & (F.row_number().over(of_key) > 1)
    marked = rows.withColumns({DUPLICATE: repeats, "_first": F.first(text).over(of_key)})
    contradicts = F.col(DUPLICATE) & (F.col("_first") != text)
    return marked.withColumns(
        {
            VALUE: F.when(contradicts, text).otherwise(F.col(VALUE)),
            REASON: F.when(contradicts, F.lit("duplicate_key")).otherwise(F.col(REASON)),
            DUPLICATE: F.col(DUPLICATE) & ~contradicts,
        }
    ).drop("_first")


def _known_days(warehouse: Warehouse, name: Entity, stored: DataFrame) -> set[str]:
    """Return the days of all drops that the stored runs come from."""
    dates = F.explode(F.array(VALID_FROM, VALID_TO, DELIVERED_UNTIL)).alias("day")
    found = stored.select(dates).where("day IS NOT NULL").distinct().collect()
    return {str(row["day"]) for row in found} | loaded_days(warehouse, name)


def _runs_of(
    warehouse: Warehouse, stored: DataFrame, every: Sequence[str], known: Sequence[str], again: Iterable[str]
) -> DataFrame:
    """Place the stored runs among all drops, and cut out the drops that are loaded again.

    Args:
        warehouse: where the table is.
        stored: the rows of the table.
        every: the days of all drops, ascending.
        known: the days of the drops that the stored runs come from, ascending.
        again: the days that are loaded again.
    """
    names = [name for name in stored.columns if name not in (VALID_FROM, VALID_TO, DELIVERED_UNTIL)]
    days = F.array(*(F.lit(day).cast("date") for day in known)).cast("array<date>")
    # A run that has ended without the date of its last delivery was written by an earlier version.
    before = F.array_max(
        F.filter(days, lambda day: day < F.coalesce(VALID_TO, F.lit("9999-12-31").cast("date")))
    )
    until = F.coalesce(DELIVERED_UNTIL, before)
    placed = _place(warehouse, stored.withColumn("_until", until), every, VALID_FROM, FIRST)
    placed = _place(warehouse, placed, every, "_until", LAST)
    pieces = [{"_from": first, "_to": last} for first, last in find_stretches(every, set(again))]
    kept = F.broadcast(local_rows(warehouse.spark, pieces, parse_schema("_from int, _to int")))
    cut = placed.join(kept, (F.col(FIRST) <= F.col("_to")) & (F.col(LAST) >= F.col("_from")))
    return cut.select(
        *names, F.greatest(FIRST, "_from").alias(FIRST), F.least(LAST, "_to").alias(LAST)
    )  # fmt: skip


def find_stretches(every: Sequence[str], again: set[str]) -> list[Stretch]:
    """Find the longest stretches of drops that are not loaded again."""
    found: list[Stretch] = []
    for position, day in enumerate(every):
        if day in again:
            continue
        if found and found[-1].last == position - 1:
            found[-1] = Stretch(found[-1].first, position)
        else:
            found.append(Stretch(position, position))
    return found


def _place(warehouse: Warehouse, rows: DataFrame, every: Sequence[str], day: str, name: str) -> DataFrame:
    """Add the column `name`: the position of the column `day` among all drops."""
    places = [{"_day": dt.date.fromisoformat(each), name: i} for i, each in enumerate(every)]
    table = local_rows(warehouse.spark, places, parse_schema(f"_day date, {name} int"))
    return rows.join(F.broadcast(table), F.col(day) == F.col("_day")).drop("_day")


def merge_runs(runs: DataFrame, key: str) -> DataFrame:
    """Merge runs of one key that follow each other and hold the same row."""
    features = [name for name in runs.columns if name not in (key, FIRST, LAST)]
    by_key = Window.partitionBy(key).orderBy(FIRST)
    says = F.struct(*features, F.lit(0).alias("_no_features"))
    goes_on = (F.lag(LAST).over(by_key) + 1 == F.col(FIRST)) & F.lag(says).over(by_key).eqNullSafe(says)
    begins = F.when(F.coalesce(goes_on, F.lit(False)), 0).otherwise(1)
    numbered = runs.withColumn("_begins", begins).withColumn("_run", F.sum("_begins").over(by_key))
    whole = [F.first(name).alias(name) for name in features]
    merged = numbered.groupBy(key, "_run").agg(*whole, F.min(FIRST).alias(FIRST), F.max(LAST).alias(LAST))
    return merged.drop("_run")


def _date_runs(
    warehouse: Warehouse, runs: DataFrame, key: str, every: Sequence[str], remove: bool
) -> DataFrame:
    """Add the dates on which each run becomes valid and ceases to be valid."""
    follows = F.lead(FIRST).over(Window.partitionBy(key).orderBy(FIRST))
    newest = len(every) - 1
    ends: Column = follows
    if remove:
        ends = F.when(F.col(LAST) < newest, F.col(LAST) + 1)
    days = F.array(*(F.lit(day).cast("date") for day in every)) if every else F.array().cast("array<date>")
    dated = runs.withColumn("_ends", ends)
    return dated.withColumns(
        {
            VALID_FROM: F.get(days, F.col(FIRST)),
            VALID_TO: F.get(days, F.col("_ends")),
            DELIVERED_UNTIL: F.when(F.col(LAST) < newest, F.get(days, F.col(LAST))),
        }
    )


def _commit(warehouse: Warehouse, name: Entity, versions: DataFrame) -> bool:
    """Write the versions unless the table holds exactly them; return whether they were written."""
    rows = versions.persist()
    try:
        if warehouse.exists(name):
            stored = warehouse.read(name)
            if set(stored.columns) == set(rows.columns) and not _differ(stored.select(*rows.columns), rows):
                return False
        warehouse.overwrite(name, rows.coalesce(4))
        return True
    finally:
        rows.unpersist()


def _differ(a: DataFrame, b: DataFrame) -> bool:
    return bool(a.exceptAll(b).limit(1).count() or b.exceptAll(a).limit(1).count())
