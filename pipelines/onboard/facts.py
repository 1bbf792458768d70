"""Describe the columns of a staged table by their values: counts, shapes and the most frequent values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import duckdb

from pipelines.onboard.staging import FILE, LINE, Staged
from pipelines.settings.ingest import NULLS

# Text that means null in every column; the rest of the expressions see it as missing.
NULL_LIST: Final = ", ".join(f"'{text}'" for text in NULLS)
SHAPES: Final = {
    "whole": r"[+-]?[0-9]{1,18}",
    "led": r"0[0-9]+",  # zeros that a number would lose
    "floats": r"-?(0|[1-9][0-9]*)\.0+|-?[0-9]\.[0-9]+[eE][+-]?[0-9]{1,3}",
    "numbers": r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?",
    "commas": r"[+-]?([0-9]{1,3}(\.[0-9]{3})+|[0-9]+),[0-9]+",
    "fractions": r"[+-]?[0-9]*\.[0-9]*[1-9][0-9]*([eE]-?[0-9]{1,2})?",
    "clocks": r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?( ?[AaPp][Mm])?",  # times of day
    "negative": r"-[0-9]*[.,]?[0-9]*[1-9][0-9]*.*",
    "iso": r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([T ].*)?",
    "zoned": r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*([zZ]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2}|\])",
}
EXACT: Final = 2_000_000  # values up to which distinct ones are counted; more are estimated
OFTEN: Final = 5  # rows of an id that say whether a value follows from it
MOST_TOP: Final = 60  # frequent values that are kept


@dataclass(frozen=True)
class Column:
    """What the values of a column look like; counts are of rows with a value."""

    name: str
    type: str  # DuckDB's name; `VARCHAR` for everything that comes from text
    rows: int
    filled: int
    distinct: int
    shapes: dict[str, int]
    least: float | None  # of the values that are numbers
    most: float | None
    top: tuple[tuple[str, int], ...]

    def share(self, shape: str) -> float:
        """The share of the values with a shape."""
        return self.shapes[shape] / self.filled if self.filled else 0.0

    @property
    def is_whole(self) -> bool:
        """Whether every value is a whole number that a `long` holds without losing a zero in front."""
        return (
            self.filled > 0
            and not self.shapes["led"]
            and self.shapes["whole"] + self.shapes["floats"] == self.filled
        )

    @property
    def is_number(self) -> bool:
        """Whether every value is a number, with a point or a comma before its fraction."""
        return self.filled > 0 and self.shapes["numbers"] + self.shapes["commas"] == self.filled


def quoted(name: str) -> str:
    """Return a column's name as DuckDB reads it."""
    return '"' + name.replace('"', '""') + '"'


def text_of(name: str) -> str:
    """Return an expression for the trimmed text of a column; what means null is null."""
    text = f"trim(CAST({quoted(name)} AS VARCHAR))"
    return f"CASE WHEN lower({text}) IN ({NULL_LIST}) THEN NULL ELSE {text} END"


def describe(con: duckdb.DuckDBPyConnection, staged: Staged, view: str) -> list[Column]:
    """Describe all columns of a table, over all of its rows.

    Args:
        con: the connection; the table becomes a view of it.
        staged: the table.
        view: the name of the view.
    """
    con.execute(
        f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM read_parquet('{staged.pattern}', union_by_name=true)"
    )
    types = {row[0]: str(row[1]) for row in con.execute(f"DESCRIBE {view}").fetchall()}
    return [_describe(con, view, name, kind) for name, kind in types.items() if name not in (FILE, LINE)]


def _describe(con: duckdb.DuckDBPyConnection, view: str, name: str, kind: str) -> Column:
    counts = ", ".join(f"count(*) FILTER (regexp_full_match(v, '{shape}'))" for shape in SHAPES.values())
    number = (
        "TRY_CAST(CASE WHEN v LIKE '%,%' THEN replace(replace(v, '.', ''), ',', '.') ELSE v END AS DOUBLE)"
    )
    row = con.execute(
        f"SELECT count(*), count(v), CASE WHEN count(v) <= {EXACT} THEN count(DISTINCT v) "
        f"ELSE approx_count_distinct(v) END, min({number}), max({number}), {counts} "
        f"FROM (SELECT {text_of(name)} AS v FROM {view})"
    ).fetchone()
    assert row is not None
    top: list[tuple[Any, ...]] = con.execute(
        f"SELECT v, count(*) AS n FROM (SELECT {text_of(name)} AS v FROM {view}) WHERE v IS NOT NULL "
        f"GROUP BY v ORDER BY n DESC, v LIMIT {MOST_TOP}"
    ).fetchall()
    distinct = len(top) if len(top) < MOST_TOP else int(row[2])
    shapes = dict(zip(SHAPES, map(int, row[5:]), strict=True))
    return Column(name, kind, int(row[0]), int(row[1]), distinct, shapes, row[3], row[4],
                  tuple((str(value), int(count)) for value, count in top))  # fmt: skip


def follows(con: duckdb.DuckDBPyConnection, view: str, key: str, column: Column) -> float:
    """Return how much better an id tells a value than the most frequent value does, from 0 to 1.

    Args:
        con: the connection with the table.
        view: the table.
        key: the column of the id.
        column: the column whose values may follow from it.
    """
    row = con.execute(
        "SELECT sum(m) / sum(s), count(*) FROM (SELECT max(n) AS m, sum(n) AS s "
        f"FROM (SELECT {text_of(key)} AS k, {text_of(column.name)} AS v, count(*) AS n FROM {view} "
        f"GROUP BY 1, 2) WHERE k IS NOT NULL AND v IS NOT NULL GROUP BY k HAVING sum(n) >= {OFTEN})"
    ).fetchone()
    usual = column.top[0][1] / column.filled
    if row is None or row[0] is None or row[1] < OFTEN or usual >= 1:
        return 0.0
    return (float(row[0]) - usual) / (1 - usual)


def plain_value(column: Column) -> str:
    """Return an expression for a column as drops have it, with nulls and decimal points."""
    name = quoted(column.name)
    if column.type != "VARCHAR":
        return name
    value = name
    if column.shapes["commas"] and column.is_number:
        value = (
            f"CASE WHEN {name} LIKE '%,%' THEN replace(replace({name}, '.', ''), ',', '.') ELSE {name} END"
        )
    return f"CASE WHEN lower(trim({name})) IN ({NULL_LIST}) THEN NULL ELSE {value} END"
