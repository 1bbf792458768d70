"""The one place where values become SQL text: `replaceWhere` takes no columns and no bound parameters.

A literal is written character by character: letters, digits and a few signs as they are, everything else as
`\\uXXXX`. So no quote, backslash or `${…}` (which Spark may replace by its configuration) is in the text.
Conditions of deletes and merges are typed columns and need none of this.
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
    """Rows that hold each of these values in the column of its name."""
    return both(*(_compare(column, "=", value) for column, value in values.items()))


def between(column: str, first: str, last: str) -> Predicate:
    """Rows that hold `first`, `last` or something between them; Delta does not resolve BETWEEN here."""
    return both(_compare(column, ">=", first), _compare(column, "<=", last))


def one_of(column: str, values: Iterable[str]) -> Predicate:
    """Rows that hold one of these values."""
    assert NAME.fullmatch(column), column  # a column of ours
    return Predicate(f"{column} IN ({', '.join(map(literal, values))})")


def both(*predicates: Predicate) -> Predicate:
    """Rows that fit all of them."""
    return Predicate(" AND ".join(predicates))


def literal(text: str) -> str:
    """A SQL string literal that is exactly `text`."""
    return f"'{''.join(c if PLAIN.match(c) else _escape(c) for c in text)}'"


def table_name(path: str) -> str:
    """A path as the table name that Delta's statements take."""
    return f"delta.`{path.replace('`', '``')}`"


def _compare(column: str, operator: str, value: str) -> Predicate:
    assert NAME.fullmatch(column), column  # a column of ours
    return Predicate(f"{column} {operator} {literal(value)}")


def _escape(character: str) -> str:
    """As the UTF-16 units that Java's strings consist of."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
