"""What ingest reads from each source: the wanted columns, and the columns that its filter names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.errors import ParseException
from pyspark.sql import SparkSession

from pipelines.ingest.source_columns import entity_columns, event_columns
from pipelines.settings.base import SettingsError
from pipelines.settings.settings import Settings
from pipelines.store.catalogue import Entity
from pipelines.udfs.values import WantedColumn


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
    where = settings.ingest.events.where
    return Wanted("events", event_columns(settings), where, find_columns(spark, "events", where))


def want_entity(spark: SparkSession, settings: Settings, name: Entity) -> Wanted:
    """Return the key and the features of `items` or `users`, and their source columns.

    Args:
        spark: the session whose parser reads the filter.
        settings: the columns, the types and the filter.
        name: `items` or `users`.

    Raises:
        SettingsError: the `where` of the source is not a condition in SQL.
    """
    where = (settings.ingest.items if name == "items" else settings.ingest.users).where
    return Wanted(name, entity_columns(settings, name), where, find_columns(spark, name, where))


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
