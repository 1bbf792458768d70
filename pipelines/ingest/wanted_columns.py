"""The columns that ingest reads from each source: our columns, their types, and their source columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.errors import ParseException
from pyspark.sql import SparkSession

from pipelines.schemas import EVENT_TS, EVENT_TYPE, ITEM_ID, LABEL, SESSION_ID, SQL_TYPES, USER_ID
from pipelines.settings.base import SettingsError
from pipelines.settings.settings import Settings
from pipelines.store.catalogue import KEYS, Entity
from pipelines.udfs.values import WantedColumn

COUNT = "_count"  # how many times an event happened
KEY = "_key_"  # followed by a number: a column of `ingest.events.key`


@dataclass(frozen=True)
class Wanted:
    """The columns of a source, and the filter of its rows."""

    source: str  # `events`, `items` or `users`
    columns: tuple[WantedColumn, ...]
    where: str | None  # a condition in SQL; None: all rows count
    filter_columns: tuple[str, ...]  # the source columns that `where` names

    @property
    def row_name(self) -> str:
        """The name of the column that holds our columns; those of the filter keep the source's names."""
        name = "row"
        while name in self.filter_columns:
            name += "_"
        return name

    @property
    def sources(self) -> list[str]:
        """The source columns that are read, each once."""
        return list(dict.fromkeys([*(c.source for c in self.columns), *self.filter_columns]))


def want_events(spark: SparkSession, settings: Settings) -> Wanted:
    """Return the columns of events and their source columns.

    Raises:
        SettingsError: `ingest.events.where` is not a condition in SQL.
    """
    ids, drop = settings.ids, settings.ingest.events
    columns = [
        WantedColumn(USER_ID, SQL_TYPES[ids.user_id], drop.user_id, required=True, is_id=True),
        WantedColumn(ITEM_ID, SQL_TYPES[ids.item_id], drop.item_id, required=True, is_id=True),
        WantedColumn(EVENT_TS, "timestamp", drop.event_ts, required=True),
        WantedColumn(EVENT_TYPE, "string", drop.event_type),
        WantedColumn(SESSION_ID, "string", drop.session_id),
        WantedColumn(LABEL, "double", drop.label),
        *(
            WantedColumn(f"{KEY}{i}", "string", name, required=True, is_id=True)
            for i, name in enumerate(drop.key)
        ),
        *([WantedColumn(COUNT, "bigint", drop.count, required=True)] if drop.count else []),
    ]
    return Wanted("events", tuple(columns), drop.where, find_columns(spark, "events", drop.where))


def want_entity(spark: SparkSession, settings: Settings, name: Entity) -> Wanted:
    """Return the key and the features of `items` or `users`, and their source columns.

    Args:
        spark: the session whose parser reads the filter.
        settings: the columns, the types and the filter.
        name: `items` or `users`.

    Raises:
        SettingsError: the `where` of the source is not a condition in SQL.
    """
    drop = settings.ingest.items if name == "items" else settings.ingest.users
    key, id_type = KEYS[name], settings.ids.item_id if name == "items" else settings.ids.user_id
    types = {column: "bigint" if kind == "long" else kind for column, kind in drop.columns.items()}
    features = [WantedColumn(c, kind, drop.source.get(c, c)) for c, kind in types.items() if c != key]
    mine = WantedColumn(key, SQL_TYPES[id_type], drop.source.get(key, key), required=True, is_id=True)
    return Wanted(name, (mine, *features), drop.where, find_columns(spark, name, drop.where))


def find_columns(spark: SparkSession, source: str, where: str | None) -> tuple[str, ...]:
    """Find the source columns that a filter names, with Spark's own parser.

    Args:
        spark: the session whose parser reads the filter.
        source: `events`, `items` or `users`.
        where: the filter; None for no filter.

    Raises:
        SettingsError: the filter is not a condition in SQL.
    """
    if where is None:
        return ()
    try:
        parser = spark._jsparkSession.sessionState().sqlParser()
        leaves = parser.parseExpression(where).collectLeaves()
    except ParseException as error:
        said = str(error).strip().splitlines()[0]
        raise SettingsError(f"ingest.{source}.where is not a condition in SQL: {where!r} ({said})") from error
    found = [leaves.apply(i) for i in range(leaves.size())]
    names = [str(leaf.nameParts().apply(0)) for leaf in found if leaf.nodeName() == "UnresolvedAttribute"]
    return tuple(dict.fromkeys(names))


def show_columns(columns: Iterable[str]) -> list[str]:
    """Sort the names of columns for a report; a column without a name, such as a pandas index, gets one."""
    return sorted(name or "(no name)" for name in columns)
