"""Write values as SQL text, for `replaceWhere`, which takes neither columns nor bound parameters.

No other module writes values into SQL. A literal is written character by character: letters, digits and a few
signs are unchanged, and everything else becomes `\\uXXXX`. So the text has no quote, no backslash and no
`${…}`, which Spark might replace by its configuration. The conditions of deletes and merges are typed columns
and need none of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NewType

Predicate = NewType("Predicate", str)

EVERY_ROW: Final = Predicate("true")
PLAIN = re.compile(r"[A-Za-z0-9 _.:+~-]")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def equals(**values: str) -> Predicate:
    """Match rows that have each of these values in the column of its name."""
    return both(*(_compare(column, "=", value) for column, value in values.items()))


def between(column: str, first: str, last: str) -> Predicate:
    """Match rows that have `first`, `last` or a value between them; Delta can't resolve BETWEEN here.

    Args:
        column: the column, whose name is written unchanged.
        first: the smallest value.
        last: the largest value.
    """
    return both(_compare(column, ">=", first), _compare(column, "<=", last))


def one_of(column: str, values: Iterable[str]) -> Predicate:
    """Match rows that have one of these values."""
    assert NAME.fullmatch(column), column  # only our own columns are used
    return Predicate(f"{column} IN ({', '.join(map(literal, values))})")


def both(*predicates: Predicate) -> Predicate:
    """Match rows that all of the predicates match."""
    return Predicate(" AND ".join(predicates))


def literal(text: str) -> str:
    """Write a SQL string literal whose value is exactly `text`."""
    return f"'{''.join(c if PLAIN.match(c) else _escape(c) for c in text)}'"


def table_name(path: str) -> str:
    """Write a path as the table name that Delta's statements take."""
    return f"delta.`{path.replace('`', '``')}`"


def _compare(column: str, operator: str, value: str) -> Predicate:
    assert NAME.fullmatch(column), column  # only our own columns are used
    return Predicate(f"{column} {operator} {literal(value)}")


def _escape(character: str) -> str:
    """Escape a character as the UTF-16 units of which Java's strings consist."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
