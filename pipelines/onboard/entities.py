"""Find the features of items and users: in their own tables, or in columns of events that follow from the id.

A column of events follows from the item if nearly all events of an item agree on it, such as its description.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import duckdb

from pipelines.onboard.facts import Column, follows, quoted, text_of
from pipelines.onboard.guesses import Guess, Guesses
from pipelines.onboard.roles import Looked, Roles
from pipelines.onboard.words import fit, words_of
from pipelines.settings.ingest import NAME, ColumnType

Kind = Literal["category", "number", "list", "vector"]
LEAST_OVERLAP: Final = 0.2  # the share of the ids of events that a table of items or users has
SURE_OVERLAP: Final = 0.9  # the same, of a table whose columns have no names
UNIQUE: Final = 0.8  # the share of different ids in such a table
FOLLOWS: Final = 0.9  # how much better than its most frequent value an id tells the value of a column
MOST_CATEGORIES: Final = 5_000  # values of a category
FEW: Final = 20  # distinct numbers up to which they are categories


@dataclass(frozen=True)
class Feature:
    """A column of items or users that the model reads."""

    name: str  # ours
    source: str
    type: ColumnType
    kind: Kind
    size: int = 0


@dataclass
class Entity:
    """Where items or users come from."""

    source: Literal["items", "users"]
    key: str  # the column of the id
    table: Looked | None  # None: there is no table of its own
    overlap: float = 0.0  # the share of the ids of events that the table has
    features: list[Feature] = field(default_factory=list)
    derived: bool = False  # whether features come from columns of events


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
    """
    source, key = about
    others = [table for table in tables if table is not events]
    ranked = sorted(
        (
            (_overlap(con, events, key, table, column), table, column)
            for table in others
            for column in table.columns
        ),
        key=lambda found: -(found[0] + _bonus(source, found[1], found[2])),
    )  # fmt: skip
    ranked = [found for found in ranked if found[0] >= LEAST_OVERLAP and _may_describe(source, key, found)]
    names = ("none", *(table.staged.table.name for table in others))
    if not others:
        return Entity(source, key, None)
    best = ranked[0] if ranked else None
    why = f"its {best[2].name} has {best[0]:.1%} of the ids of events" if best else "no table has their ids"
    name = guesses.settle(
        Guess(source, f"Which table describes {source}?", best[1].staged.table.name if best else None, why,
              choices=names)
    )  # fmt: skip
    mine = [found for found in ranked if found[1].staged.table.name == name]
    if not mine:
        return Entity(source, key, None)
    overlap, table, column = mine[0]
    features = [
        feature for each in table.columns if (feature := describe_feature(con, table, each, column.name))
    ]
    return Entity(source, column.name, table, overlap, _distinct(features))


def _may_describe(source: str, key: str, found: tuple[float, Looked, Column]) -> bool:
    """Whether a table can describe items or users; small numbers are in any table, so names count."""
    overlap, table, column = found
    role = source.removesuffix("s")
    other = {"user": "item", "item": "user"}[role]
    name = table.staged.table.name
    if column.distinct < UNIQUE * column.filled or (fit(name, other) > fit(name, role)):
        return False
    if table.staged.table.dialect.header:  # the file has no names of columns
        return overlap >= SURE_OVERLAP
    named = fit(column.name, role) >= 0.5 or (fit(name, role) >= 0.5 and words_of(column.name)[-1:] == ["id"])
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


def derive_features(
    con: duckdb.DuckDBPyConnection, events: Looked, key: str, taken: set[str]
) -> list[Feature]:
    """Return the columns of events that follow from an id, as features of this id.

    Args:
        con: the connection with the tables.
        events: the table of events.
        key: the column of the id.
        taken: columns that have a role of their own.
    """
    found = []
    for column in events.columns:
        if column.name in taken or column.name in events.times or column.distinct < 2:
            continue
        feature = describe_feature(con, events, column, key)
        if (
            feature
            and feature.kind in ("category", "number")
            and follows(con, events.view, key, column) >= FOLLOWS
        ):
            found.append(feature)
    return _distinct(found)


def describe_feature(
    con: duckdb.DuckDBPyConnection, table: Looked, column: Column, key: str
) -> Feature | None:
    """Return a column as a feature; None if it is the id, a time, free text or always the same.

    Args:
        con: the connection with the tables.
        table: the table of the column.
        column: what its values look like.
        key: the column of the id.
    """
    if column.name == key or column.name in table.times or column.distinct < 2 or not column.filled:
        return None
    name = our_name(column.name)
    if column.type.endswith("[]"):
        return _describe_list(con, table, column, name)
    if column.type.startswith(("STRUCT", "MAP", "BLOB", "DATE", "TIME")):
        return None
    if column.is_number and column.distinct > FEW:
        return Feature(name, column.name, "double", "number")
    ids = con.execute(f"SELECT approx_count_distinct({text_of(key)}) FROM {table.view}").fetchone()
    most = min(MOST_CATEGORIES, max(FEW, (int(ids[0]) if ids else 0) // 2))
    return Feature(name, column.name, "string", "category") if column.distinct <= most else None


def _describe_list(
    con: duckdb.DuckDBPyConnection, table: Looked, column: Column, name: str
) -> Feature | None:
    if column.type == "VARCHAR[]":
        return Feature(name, column.name, "array<string>", "list")
    if not re.fullmatch(r"(DOUBLE|FLOAT|TINYINT|SMALLINT|INTEGER|BIGINT)\[\]", column.type):
        return None
    row = con.execute(f"SELECT mode(len({quoted(column.name)})) FROM {table.view}").fetchone()
    return Feature(name, column.name, "array<double>", "vector", int(row[0])) if row and row[0] else None


def our_name(source: str) -> str:
    """Return the name of a source column in the letters that our columns may have."""
    plain = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", source)).strip("_")
    return plain if NAME.fullmatch(plain) else f"c_{plain}".rstrip("_")


def _distinct(features: list[Feature]) -> list[Feature]:
    """Keep the first of the features whose names differ only in case or that have the name of an id."""
    kept: dict[str, Feature] = {}
    for feature in features:
        if feature.name.lower() not in ("item_id", "user_id"):
            kept.setdefault(feature.name.lower(), feature)
    return list(kept.values())


def taken_columns(roles: Roles) -> set[str]:
    """Return the columns of events that have a role."""
    return {roles.user, roles.item, roles.time, roles.event_type, roles.session, roles.label, roles.quantity}
