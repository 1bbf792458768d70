"""Describe a column of items or users as a feature that the model reads, or as the name that people read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

import duckdb

from pipelines.onboard.facts import Column, quoted, text_of
from pipelines.onboard.looked import Looked
from pipelines.onboard.words import ABOUT, NAMING, words_of
from pipelines.settings.ingest import NAME, ColumnType

Kind = Literal["category", "number", "list", "vector"]
MOST_CATEGORIES: Final = 5_000  # values of a category
FEW: Final = 20  # distinct numbers up to which they are categories
SEPARATOR: Final = "|"  # between the values of a text that is a list; a comma may be part of a value
SOME: Final = 0.2  # the least share of texts with a separator, of rows with a name, and of names to ids


@dataclass(frozen=True)
class Feature:
    """A column of items or users that the model reads."""

    name: str  # ours
    source: str
    type: ColumnType
    kind: Kind
    size: int = 0
    separator: str = ""  # what parts the values of a text that is a list

    def as_category(self) -> Feature:
        """Return a list within a text as one category: its whole text."""
        return replace(self, type="string", kind="category", separator="")


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
    if column.type == "VARCHAR" and _is_text_of_lists(con, table, column):
        return Feature(name, column.name, "array<string>", "list", separator=SEPARATOR)
    if column.is_number and column.distinct > FEW:
        return Feature(name, column.name, "double", "number")
    most = min(MOST_CATEGORIES, max(FEW, table.column(key).distinct // 2))
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


def _is_text_of_lists(con: duckdb.DuckDBPyConnection, table: Looked, column: Column) -> bool:
    """Whether a text holds several values, such as `Drama|War`: many do, and the values come back."""
    if sum(SEPARATOR in value for value, _ in column.top) < SOME * len(column.top):
        return False
    row = con.execute(
        f"WITH texts AS (SELECT {text_of(column.name)} AS v FROM {table.view}), "
        "parts AS (SELECT trim(unnest(string_split(v, $1))) AS part FROM texts) "
        "SELECT avg(CASE WHEN contains(v, $1) THEN 1.0 ELSE 0.0 END), count(DISTINCT v), "
        "(SELECT count(DISTINCT part) FROM parts WHERE part <> '') FROM texts",
        [SEPARATOR],
    ).fetchone()
    if row is None or row[0] is None:
        return False
    return bool(row[0] >= SOME and row[2] <= min(row[1], MOST_CATEGORIES))


def find_name(table: Looked, key: str) -> Feature | None:
    """Return the column of texts that names an item, such as a title; None if no name of a column says so.

    Args:
        table: the table of items, or of events with columns of items.
        key: the column of the id.
    """
    ids = table.column(key).distinct
    fits = [
        column
        for column in table.columns
        if column.name != key
        and column.type == "VARCHAR"
        and not column.is_number
        and column.filled >= SOME * column.rows
        and column.distinct >= SOME * ids
        and words_of(column.name)[-1:]
        and words_of(column.name)[-1] in NAMING
        and not set(words_of(column.name)) & (ABOUT - NAMING)
    ]
    best = max(fits, key=lambda column: column.distinct, default=None)
    return Feature(our_name(best.name), best.name, "string", "category") if best else None


def our_name(source: str) -> str:
    """Return the name of a source column in the letters that our columns may have."""
    plain = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", source)).strip("_")
    return plain if NAME.fullmatch(plain) else f"c_{plain}".rstrip("_")


def distinct_names(features: list[Feature]) -> list[Feature]:
    """Keep the first of the features whose names differ only in case or that have the name of an id."""
    kept: dict[str, Feature] = {}
    for feature in features:
        if feature.name.lower() not in ("item_id", "user_id"):
            kept.setdefault(feature.name.lower(), feature)
    return list(kept.values())
