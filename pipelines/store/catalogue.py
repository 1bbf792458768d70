"""Read items and users as they were on any day.

A drop of day D is valid from D on; a version of a row is valid on `[_valid_from, _valid_to)`. A night reads
the rows that are valid on the day before it, as it reads the events before it.
"""

from __future__ import annotations

from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.schemas import DELIVERED_UNTIL, ITEM_ID, SQL_TYPES, USER_ID, VALID_FROM, VALID_TO
from pipelines.settings.ingest import EntityDrop
from pipelines.settings.settings import Settings
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.tables import Warehouse

Entity = Literal["items", "users"]
KEYS: dict[str, str] = {"items": ITEM_ID, "users": USER_ID}
EARLIER = {"valid_from": VALID_FROM, "valid_to": VALID_TO}  # names in tables of earlier versions


def entity_drop(settings: Settings, name: Entity) -> EntityDrop:
    """Return the settings of the drops of `items` or `users`."""
    return settings.ingest.items if name == "items" else settings.ingest.users


def entity_types(settings: Settings, name: Entity) -> dict[str, str]:
    """Return the SQL types of the key and the features by the name of the column."""
    id_type = settings.ids.item_id if name == "items" else settings.ids.user_id
    features = entity_drop(settings, name).columns
    types = {column: "bigint" if kind == "long" else str(kind) for column, kind in features.items()}
    return {KEYS[name]: SQL_TYPES[id_type], **types}


def read_versions(warehouse: Warehouse, name: Entity, version: int | None = None) -> DataFrame:
    """Read all versions of all rows, with the dates on which each is valid.

    The columns are those of the settings; a column that was added to them later is null in older rows.

    Args:
        warehouse: the warehouse that contains the table.
        name: the table.
        version: the Delta version of the table; None reads the newest, and -1 means that the table did not
            exist, so there are no rows.
    """
    types = entity_types(warehouse.settings, name)
    if version == -1 or not warehouse.exists(name):
        fields = [f"{column} {kind}" for column, kind in types.items()]
        validity = [f"{column} date" for column in (VALID_FROM, VALID_TO, DELIVERED_UNTIL)]
        return local_rows(warehouse.spark, [], parse_schema(", ".join([*fields, *validity])))
    rows = warehouse.read(name, version)
    if VALID_FROM not in rows.columns:
        rows = rows.withColumnsRenamed(EARLIER).withColumn(DELIVERED_UNTIL, F.lit(None).cast("date"))
    there = set(rows.columns)
    columns = [
        F.col(column) if column in there else F.lit(None).cast(kind).alias(column)
        for column, kind in types.items()
    ]
    return rows.select(*columns, VALID_FROM, VALID_TO, DELIVERED_UNTIL)


def read_entity(warehouse: Warehouse, name: Entity, night: str, version: int | None = None) -> DataFrame:
    """Read the key and the features of the rows that are valid on the day before a night.

    Args:
        warehouse: the warehouse that contains the table.
        name: the table.
        night: the date of the night (YYYY-MM-DD).
        version: the Delta version of the table; see `read_versions`.
    """
    rows = read_versions(warehouse, name, version).where(_holds_on(_day_before(night)))
    return rows.drop(VALID_FROM, VALID_TO, DELIVERED_UNTIL)


def read_withdrawn(warehouse: Warehouse, name: Entity, night: str, version: int | None = None) -> DataFrame:
    """Read the keys that an earlier drop listed and that the newest drop before a night leaves out.

    Args:
        warehouse: the warehouse that contains the table.
        name: the table.
        night: the date of the night (YYYY-MM-DD).
        version: the Delta version of the table; see `read_versions`.
    """
    day = _day_before(night)
    known = read_versions(warehouse, name, version).where(F.col(VALID_FROM) <= day)
    holds = F.max(_holds_on(day)).alias("holds")
    return known.groupBy(KEYS[name]).agg(holds).where(~F.col("holds")).select(KEYS[name])


def _day_before(night: str) -> Column:
    return F.date_sub(F.lit(night).cast("date"), 1)


def _holds_on(day: Column) -> Column:
    return (F.col(VALID_FROM) <= day) & (F.col(VALID_TO).isNull() | (F.col(VALID_TO) > day))
