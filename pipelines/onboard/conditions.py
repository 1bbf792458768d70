"""Read conditions of the settings, which are Spark's SQL, with DuckDB, which has nearly the same.

Both compare a text with a number as numbers, but DuckDB only if the column itself holds numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import duckdb

from pipelines.onboard.facts import quoted

QUOTED: Final = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`""")
UNKNOWN: Final = re.compile(r'Referenced column "(.+?)" not found')
# Names that mean something else in SQL, here or there, if they are not quoted.
RESERVED: Final = frozenset(
    (
        "user",
        "current_user",
        "session_user",
        "date",
        "time",
        "timestamp",
        "interval",
        "order",
        "group",
        "table",
    )
)


def spark_name(name: str) -> str:
    """Return a column's name as a condition of Spark's SQL has it."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in RESERVED
    return name if plain else "`" + name.replace("`", "``") + "`"


def duck_condition(where: str) -> str:
    """Return a condition as DuckDB reads it, which quotes names and texts otherwise."""
    return QUOTED.sub(_requote, where)


def _requote(found: re.Match[str]) -> str:
    text, mark = found[0][1:-1], found[0][0]
    if mark == "`":
        return quoted(text.replace("``", "`"))
    return "'" + text.replace('""', '"').replace("'", "''") + "'" if mark == '"' else found[0]


def with_numbers(view: str, numbers: Sequence[str]) -> str:
    """Return a query for a table whose columns of numbers, which are text, are numbers.

    Args:
        view: the table.
        numbers: the columns whose values are all numbers.
    """
    casts = ", ".join(f"TRY_CAST({quoted(name)} AS DOUBLE) AS {quoted(name)}" for name in numbers)
    return f"SELECT * REPLACE ({casts}) FROM {view}" if casts else f"SELECT * FROM {view}"


def find_unknown(where: str, names: Iterable[str]) -> str | None:
    """Return a column that a condition names and a table does not have.

    Args:
        where: the condition, as the settings have it.
        names: the columns of the table.
    """
    columns = ", ".join(f"NULL::VARCHAR AS {quoted(name)}" for name in dict.fromkeys(names))
    try:
        duckdb.connect().execute(f"SELECT 1 FROM (SELECT {columns}) WHERE {duck_condition(where)}")
    except duckdb.Error as error:
        found = UNKNOWN.search(str(error))
        return found[1] if found else None
    return None
