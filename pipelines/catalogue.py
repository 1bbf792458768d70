"""Items and users as they were on any day: `raw/items` and `raw/users` to versions with
`valid_from` and `valid_to`.

A drop of day D says what holds from D on; a version holds on `[valid_from, valid_to)`.
Night `ds` reads the day before it, as it reads the events before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.columns import DROP_DS, ITEM_ID, USER_ID, VALID_FROM, VALID_TO
from pipelines.drops import FILE, RAW, REASON, DropError, Wanted, explain_read_errors, read_drop
from pipelines.events import quarantine, refuse_bad_share
from pipelines.runs import Manifest
from pipelines.settings import EntityDrop
from pipelines.tables import SQL_TYPES, Warehouse, local_rows, parse_schema

Entity = Literal["items", "users"]
KEYS: dict[str, str] = {"items": ITEM_ID, "users": USER_ID}


def ingest_entity(warehouse: Warehouse, name: Entity, days: Sequence[str]) -> Manifest:
    """Fold the drops of `days` into the versions, in order.

    Raises:
        DropError: see `read_drop`; too many bad rows; or a later drop is in the table already.
    """
    drop, key = _drop(warehouse, name), KEYS[name]
    wanted = _wanted(warehouse, name)
    checked = None
    try:
        read = read_drop(warehouse.spark, warehouse.settings, name, days, wanted)
        checked = _check(read.rows, key).persist()
        counts = {row[REASON]: row["count"] for row in checked.groupBy(REASON).count().collect()}
        bad = checked.where(F.col(REASON).isNotNull()) if set(counts) - {None} else None
        quarantine(warehouse, name, days, bad)
        refuse_bad_share(name, counts, warehouse.settings.ingest.max_rejected_share)
        versions = _history_before(warehouse, name, days)
        good = checked.where(F.col(REASON).isNull())
        for day in days:
            today = good.where(F.col(DROP_DS) == F.lit(day).cast("date")).select(*wanted)
            versions = fold_versions(versions, today, day, key, drop.absent)
        changed = _commit(warehouse, name, versions)
    except (Py4JJavaError, PySparkException) as error:
        raise explain_read_errors(error, name) from error
    finally:
        if checked is not None:
            checked.unpersist()
    rejected = {reason: count for reason, count in counts.items() if reason}
    return {
        "rows": counts.get(None, 0),
        "rejected": rejected,
        "extra_columns": read.extra,
        "changed": changed,
    }


def _check(rows: DataFrame, key: str) -> DataFrame:
    """Adds the reason that needs more than one row; a good row wins over a bad one of its key."""
    once = Window.partitionBy(DROP_DS, key).orderBy(F.col(REASON).isNotNull(), FILE, RAW)
    duplicate = F.when(F.row_number().over(once) > 1, F.lit("duplicate_key"))
    return rows.withColumn(REASON, F.coalesce(REASON, duplicate))


def fold_versions(
    versions: DataFrame, today: DataFrame, day: str, key: str, absent: Literal["keep", "remove"]
) -> DataFrame:
    """Close what changed (or went, with `remove`) on `day`, open what is new.

    `today` holds the key and the feature columns; `versions` the same with validity.
    """
    features = [name for name in today.columns if name != key]
    start = F.lit(day).cast("date")
    current = versions.where(F.col(VALID_TO).isNull())
    now, old = today.alias("now"), current.alias("old")
    differs = F.lit(False)
    for name in features:
        differs = differs | ~F.col(f"now.{name}").eqNullSafe(F.col(f"old.{name}"))
    is_new = F.col(f"old.{VALID_FROM}").isNull()
    is_gone = F.col("_here").isNull()
    joined = now.withColumn("_here", F.lit(1)).join(old, key, "full_outer")
    opened = joined.where(~is_gone & (is_new | differs)).select(
        key,
        *(F.col(f"now.{n}") for n in features),
        start.alias(VALID_FROM),
        F.lit(None).cast("date").alias(VALID_TO),
    )
    closing = (~is_gone & differs) | (is_gone if absent == "remove" else F.lit(False))
    kept = joined.where(~is_new).select(
        key,
        *(F.col(f"old.{n}") for n in features),
        F.col(f"old.{VALID_FROM}"),
        F.when(closing, start).alias(VALID_TO),
    )
    return versions.where(F.col(VALID_TO).isNotNull()).unionByName(kept).unionByName(opened)


def newest_day(warehouse: Warehouse, name: Entity) -> str:
    """The last day on which a version begins or ends; empty when there is none."""
    if not warehouse.exists(name):
        return ""
    latest = warehouse.read(name).agg(F.max(F.greatest(VALID_FROM, VALID_TO))).collect()[0][0]
    return str(latest or "")


def read_entity(warehouse: Warehouse, name: Entity, night: str, version: int | None = None) -> DataFrame:
    """Key and features as night `night` sees them, at a Delta version (None: now, -1: no table yet)."""
    day = F.date_sub(F.lit(night).cast("date"), 1)
    there = warehouse.exists(name) and version != -1
    rows = warehouse.read(name, version) if there else _none(warehouse, name)
    return rows.where(_holds_on(day)).drop(VALID_FROM, VALID_TO)


def _holds_on(day: Column) -> Column:
    return (F.col(VALID_FROM) <= day) & (F.col(VALID_TO).isNull() | (F.col(VALID_TO) > day))


def _history_before(warehouse: Warehouse, name: Entity, days: Sequence[str]) -> DataFrame:
    """Versions as they stood before the first of `days`, so that a reload starts clean."""
    if not warehouse.exists(name):
        return _none(warehouse, name)
    first, last = (F.lit(day).cast("date") for day in (days[0], days[-1]))
    stored = warehouse.read(name)
    later = stored.where((F.col(VALID_FROM) > last) | (F.col(VALID_TO) > last)).limit(1).count()
    if later:
        raise DropError(
            f"{name}: the table holds drops later than {days[-1]}; versions are folded in order: "
            f"load again from {days[0]} to the newest drop (--from {days[0]} --to …)"
        )
    reopened = F.when(F.col(VALID_TO) < first, F.col(VALID_TO)).alias(VALID_TO)
    before = stored.where(F.col(VALID_FROM) < first)
    names = [*_wanted(warehouse, name), VALID_FROM]
    missing = [n for n in names if n not in stored.columns]
    types = _none(warehouse, name).schema
    for column in missing:  # a column added to the settings is null in the past
        before = before.withColumn(column, F.lit(None).cast(types[column].dataType))
    return before.select(*names, reopened)


def _commit(warehouse: Warehouse, name: Entity, versions: DataFrame) -> bool:
    """Write the versions unless the table says the same already."""
    if warehouse.exists(name):
        stored = warehouse.read(name)
        same_columns = set(stored.columns) == set(versions.columns)
        if same_columns and not _differ(stored.select(*versions.columns), versions):
            return False
    warehouse.overwrite(name, versions.coalesce(4))
    return True


def _differ(a: DataFrame, b: DataFrame) -> bool:
    return bool(a.exceptAll(b).limit(1).count() or b.exceptAll(a).limit(1).count())


def _drop(warehouse: Warehouse, name: Entity) -> EntityDrop:
    ingest = warehouse.settings.ingest
    return ingest.items if name == "items" else ingest.users


def _wanted(warehouse: Warehouse, name: Entity) -> dict[str, Wanted]:
    drop, ids = _drop(warehouse, name), warehouse.settings.ids
    key_type = ids.item_id if name == "items" else ids.user_id
    key = KEYS[name]
    columns = {column: "bigint" if kind == "long" else kind for column, kind in drop.columns.items()}
    features = {c: Wanted(kind, drop.source.get(c, c), False) for c, kind in columns.items()}
    return {key: Wanted(SQL_TYPES[key_type], drop.source.get(key, key), True), **features}


def _none(warehouse: Warehouse, name: Entity) -> DataFrame:
    fields = [f"{column} {wanted.type}" for column, wanted in _wanted(warehouse, name).items()]
    ddl = ", ".join([*fields, f"{VALID_FROM} date", f"{VALID_TO} date"])
    return local_rows(warehouse.spark, [], parse_schema(ddl))
