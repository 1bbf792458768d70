"""Find the features of items and users: in their own tables, or in columns of events that follow from the id.

A column of events follows from the item if nearly all events of an item agree on it, such as its description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import duckdb

from pipelines.onboard.dialect import DataError
from pipelines.onboard.facts import Column, follows, text_of
from pipelines.onboard.features import Feature, describe_feature, distinct_names, find_name
from pipelines.onboard.guesses import Guess, Guesses
from pipelines.onboard.looked import Looked, Roles
from pipelines.onboard.staging import is_array
from pipelines.onboard.tables import Table
from pipelines.onboard.words import ID_WORDS, fit, words_of

LEAST_OVERLAP: Final = 0.2  # the share of the ids of events that a table of items or users has
SURE_OVERLAP: Final = 0.9  # the same, of a table whose columns have no names
UNIQUE: Final = 0.8  # the share of different ids in such a table
FOLLOWS: Final = 0.9  # how much better than its most frequent value an id tells the value of a column


@dataclass
class Entity:
    """Where items or users come from."""

    source: Literal["items", "users"]
    key: str  # the column of the id
    table: Looked | None  # None: there is no table of its own
    overlap: float = 0.0  # the share of the ids of events that the table has
    features: list[Feature] = field(default_factory=list)
    derived: bool = False  # whether features come from columns of events
    name: Feature | None = None  # the column that people know an item by

    @property
    def columns(self) -> list[Feature]:
        """The columns that are loaded: the features, and the name unless it is one of them."""
        return distinct_names([*self.features, *([self.name] if self.name else [])])

    def keep_in_place(self) -> None:
        """Read a text of several values as one category: drops that stay in place can't be split."""
        self.features = [feature.as_category() if feature.separator else feature for feature in self.features]


def find_entity(
    con: duckdb.DuckDBPyConnection,
    tables: Sequence[Looked],
    events: Looked,
    about: tuple[Literal["items", "users"], str],
    guesses: Guesses,
) -> Entity:
    """Find the table that describes items or users, by how many ids of the events it has.

    Args:
        con: the connection with the tables.
        tables: all tables.
        events: the table of events.
        about: `items` or `users`, and the column of events with their ids.
        guesses: takes the guess and the answer.

    Raises:
        DataError: the answer is a table that does not share ids with the events.
    """
    source, key = about
    others = [table for table in tables if table is not events]
    every = sorted(
        (
            (_overlap(con, events, key, table, column), table, column)
            for table in others
            for column in table.columns
        ),
        key=lambda found: -(found[0] + _bonus(source, found[1], found[2])),
    )  # fmt: skip
    ranked = [found for found in every if found[0] >= LEAST_OVERLAP and _may_describe(source, key, found)]
    names = ("none", *(table.staged.table.name for table in others))
    if not others:
        return Entity(source, key, None)
    best = ranked[0] if ranked else None
    why = f"its {best[2].name} has {best[0]:.1%} of the ids of events" if best else "no table has their ids"
    name = guesses.settle(
        Guess(source, f"Which table describes {source}?", best[1].staged.table.name if best else None, why,
              choices=names)
    )  # fmt: skip
    if name is None:
        return Entity(source, key, None)
    overlap, table, column = next(found for found in (*ranked, *every) if found[1].staged.table.name == name)
    if overlap < LEAST_OVERLAP:
        raise DataError(
            f"the table {name} can't describe {source}: the column with most of the ids of {key} is "
            f"{column.name}, with {overlap:.1%}; correct --{source}, or deliver the ids in one form"
        )
    features = [
        feature for each in table.columns if (feature := describe_feature(con, table, each, column.name))
    ]
    shown = find_name(table, column.name) if source == "items" else None
    return Entity(source, column.name, table, overlap, distinct_names(features), name=shown)


def _may_describe(source: str, key: str, found: tuple[float, Looked, Column]) -> bool:
    """Whether a table can describe items or users; small numbers are in any table, so there names count."""
    overlap, table, column = found
    role = source.removesuffix("s")
    other = {"user": "item", "item": "user"}[role]
    name = table.staged.table.name
    if column.distinct < UNIQUE * column.filled or (fit(name, other) > fit(name, role)):
        return False
    if table.staged.table.dialect.header or not column.is_whole:  # there are no names, or values say it
        return overlap >= SURE_OVERLAP or _is_named(column, name, role, key)
    return _is_named(column, name, role, key)


def _is_named(column: Column, table: str, role: str, key: str) -> bool:
    """Whether the names of a column and its table say that the column has the ids of a role."""
    ends = words_of(column.name)[-1:]
    named = fit(column.name, role) >= 0.5 or (fit(table, role) >= 0.5 and bool(ends) and ends[0] in ID_WORDS)
    return named or column.name.lower() == key.lower()


def _bonus(source: str, table: Looked, column: Column) -> float:
    """Prefer, of columns with the same ids, those whose table and name say what they hold."""
    role = source.removesuffix("s")
    named = fit(table.staged.table.name, role) + fit(column.name, role)
    unique = column.distinct / max(column.filled, 1)
    return 0.3 * named + 0.5 * min(unique, 1.0)


def _overlap(
    con: duckdb.DuckDBPyConnection, events: Looked, key: str, table: Looked, column: Column
) -> float:
    if not column.filled or column.name in table.times or column.distinct < 2:
        return 0.0
    ids = "regexp_replace({}, '\\.0+$', '')"
    row = con.execute(
        f"SELECT avg(CASE WHEN b.v IS NULL THEN 0.0 ELSE 1.0 END) "
        f"FROM (SELECT DISTINCT {ids.format(text_of(key))} AS v FROM {events.view}) a LEFT JOIN "
        f"(SELECT DISTINCT {ids.format(text_of(column.name))} AS v FROM {table.view}) b USING (v) "
        "WHERE a.v IS NOT NULL"
    ).fetchone()
    return float(row[0]) if row and row[0] is not None else 0.0


def derive_features(con: duckdb.DuckDBPyConnection, events: Looked, entity: Entity, taken: set[str]) -> None:
    """Take the columns of events that follow from an id as the features of this id, and its name among them.

    Args:
        con: the connection with the tables.
        events: the table of events.
        entity: items or users without a table of their own; takes the features.
        taken: columns that have a role of their own.
    """
    found = [
        feature
        for column in events.columns
        if column.name not in taken
        and (feature := describe_feature(con, events, column, entity.key))
        and feature.kind != "vector"
        and (feature.kind != "list" or feature.separator)
        and follows(con, events.view, entity.key, column) >= FOLLOWS
    ]
    entity.features = distinct_names(found)
    shown = find_name(events, entity.key) if entity.source == "items" else None
    free = shown is not None and shown.source not in taken
    if shown and free and follows(con, events.view, entity.key, events.column(shown.source)) >= FOLLOWS:
        entity.name = shown
    entity.derived = bool(entity.columns)


def taken_columns(roles: Roles) -> set[str]:
    """Return the columns of events that have a role."""
    return {roles.user, roles.item, roles.time, roles.event_type, roles.session, roles.label, roles.quantity}


def can_stay(tables: Sequence[Table], entities: Sequence[Entity], events: Looked, roles: Roles) -> bool:
    """Whether ingest can read drops where they are: all in one dialect, with no look into objects or arrays.

    Args:
        tables: all tables.
        entities: items and users.
        events: the table of events.
        roles: its columns.
    """
    dialects = {replace(table.dialect, names=()) for table in tables}
    arrays = any(is_array(table.files[0], table.dialect) for table in tables)
    inner = bool(taken_columns(roles) & events.staged.inner)
    for entity in entities:
        if entity.table:
            inner |= bool({entity.key, *(f.source for f in entity.columns)} & entity.table.staged.inner)
    return len(dialects) == 1 and not arrays and not inner
