"""Loading `items` and `users`: drops to versions with `_valid_from` and `_valid_to`.

A row of the table is a *run*: consecutive drops that said the same of one key. All runs together say what
every drop ever delivered held, so any day can be corrected in any order, whether or not the folders of later
days are still there, and the table is what loading all drops from nothing would make it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.ingest.ledger import loaded_days, note_loaded
from pipelines.ingest.load_drops import DUPLICATE, load_drops
from pipelines.ingest.read_drops import DROP_DAY, FILE, KEPT, LOCATION, REASON, VALUE
from pipelines.ingest.wanted_columns import want_entity
from pipelines.schemas import DELIVERED_UNTIL, VALID_FROM, VALID_TO
from pipelines.store.catalogue import KEYS, Entity, entity_drop, entity_types, read_versions
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.manifests import SourceReport
from pipelines.store.tables import Warehouse

FIRST, LAST = "_first", "_last"  # places of a run's first and last drop among all drops, from 0


def ingest_entity(warehouse: Warehouse, name: Entity, days: Sequence[str]) -> SourceReport:
    """Load the drops of `days`, in any order and as often as they are delivered.

    Raises:
        DropError: naming every fault of these drops; no version was committed.
    """
    wanted, key = want_entity(warehouse.spark, warehouse.settings, name), KEYS[name]
    columns = list(entity_types(warehouse.settings, name))
    loaded = load_drops(warehouse, wanted, days, lambda rows: _mark_duplicates(rows, key, columns))
    try:
        stored = read_versions(warehouse, name)
        known = _known_days(warehouse, name, stored)
        every = sorted(known | set(loaded.days))
        runs = _runs_of(warehouse, stored, every, sorted(known), loaded.days)
        new = _place(warehouse, loaded.good, every, DROP_DAY, FIRST).withColumn(LAST, F.col(FIRST))
        merged = merge_runs(runs.unionByName(new.select(*runs.columns)), key)
        absent = entity_drop(warehouse.settings, name).absent
        versions = _date_runs(warehouse, merged, key, every, absent == "remove")
        changed = bool(loaded.days) and _commit(warehouse, name, versions.select(*stored.columns))
    finally:
        loaded.rows.unpersist()
    note_loaded(warehouse, name, loaded.days, loaded.days)
    return loaded.report.model_copy(update={"changed": changed})


def _mark_duplicates(rows: DataFrame, key: str, columns: Sequence[str]) -> DataFrame:
    """Of rows of one drop with one key, one is loaded; rows that contradict it are bad."""
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
    """Days of all drops that the stored runs are made of."""
    dates = F.explode(F.array(VALID_FROM, VALID_TO, DELIVERED_UNTIL)).alias("day")
    found = stored.select(dates).where("day IS NOT NULL").distinct().collect()
    return {str(row[0]) for row in found} | loaded_days(warehouse, name)


def _runs_of(
    warehouse: Warehouse, stored: DataFrame, every: Sequence[str], known: Sequence[str], again: Iterable[str]
) -> DataFrame:
    """Stored runs by the places of their drops among `every`, without the drops that are loaded again."""
    names = [name for name in stored.columns if name not in (VALID_FROM, VALID_TO, DELIVERED_UNTIL)]
    days = F.array(*(F.lit(day).cast("date") for day in known)).cast("array<date>")
    # A run that has ended and does not say when its key was last delivered is of an earlier version's table.
    before = F.array_max(
        F.filter(days, lambda day: day < F.coalesce(VALID_TO, F.lit("9999-12-31").cast("date")))
    )
    until = F.coalesce(DELIVERED_UNTIL, before)
    placed = _place(warehouse, stored.withColumn("_until", until), every, VALID_FROM, FIRST)
    placed = _place(warehouse, placed, every, "_until", LAST)
    pieces = [{"_from": a, "_to": b} for a, b in find_pieces(every, set(again))]
    kept = F.broadcast(local_rows(warehouse.spark, pieces, parse_schema("_from int, _to int")))
    cut = placed.join(kept, (F.col(FIRST) <= F.col("_to")) & (F.col(LAST) >= F.col("_from")))
    return cut.select(
        *names, F.greatest(FIRST, "_from").alias(FIRST), F.least(LAST, "_to").alias(LAST)
    )  # fmt: skip


def find_pieces(every: Sequence[str], again: set[str]) -> list[tuple[int, int]]:
    """First and last places of the longest stretches of drops that are not loaded again."""
    pieces: list[tuple[int, int]] = []
    for place, day in enumerate(every):
        if day in again:
            continue
        if pieces and pieces[-1][1] == place - 1:
            pieces[-1] = (pieces[-1][0], place)
        else:
            pieces.append((place, place))
    return pieces


def _place(warehouse: Warehouse, rows: DataFrame, every: Sequence[str], day: str, name: str) -> DataFrame:
    """Adds the place of a day among all drops."""
    places = [{"_day": dt.date.fromisoformat(each), name: i} for i, each in enumerate(every)]
    table = local_rows(warehouse.spark, places, parse_schema(f"_day date, {name} int"))
    return rows.join(F.broadcast(table), F.col(day) == F.col("_day")).drop("_day")


def merge_runs(runs: DataFrame, key: str) -> DataFrame:
    """Runs of one key that follow each other and say the same become one."""
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
    """Runs with the dates on which they begin and cease to hold."""
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
    """Write the versions unless the table says the same already."""
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
