"""Describe the tables that were found, and find the one that holds the events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import duckdb

from pipelines.onboard.dialect import DataError, read_text_lines
from pipelines.onboard.facts import SHAPES, Column
from pipelines.onboard.guesses import Guess, Guesses, some
from pipelines.onboard.staging import Staged
from pipelines.onboard.time_forms import TimeForm, find_form
from pipelines.onboard.words import fit

GOOD: Final = 1.0  # a name that fits a role well
LEAST_IDS: Final = 3  # distinct values of a column of ids
RIVAL: Final = 0.5  # the share of the rows of the largest table from which another may hold the events


@dataclass
class Looked:
    """A table with its columns."""

    staged: Staged
    view: str
    columns: list[Column]
    times: dict[str, TimeForm] = field(default_factory=dict)
    joined: str = ""  # the column that was made of a date and a time of day

    def column(self, name: str) -> Column:
        """Return the column of a name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]


@dataclass
class Roles:
    """The columns of the table of events by role; an empty name where there is none."""

    user: str
    item: str
    time: str
    form: TimeForm
    event_type: str = ""
    session: str = ""
    label: str = ""
    quantity: str = ""


def find_times(con: duckdb.DuckDBPyConnection, table: Looked) -> None:
    """Find the columns of a table that hold times."""
    for column in table.columns:
        if form := find_form(con, table.view, column):
            table.times[column.name] = form


def find_events(tables: Sequence[Looked], guesses: Guesses) -> Looked:
    """Return the table of events: the one with a time, a user and an item, and the most rows.

    Raises:
        DataError: no table has a time, or the option names none.
    """
    names = tuple(table.staged.table.name for table in tables)
    fits = [table for table in tables if table.times and len(columns_of_ids(table, set())) >= 2]
    ranked = sorted(fits, key=lambda t: (t.staged.table.name != "events", -t.staged.rows))
    if not ranked:
        looked = "; ".join(f"{t.staged.table.name} has {some(t.names)}{_explain(t)}" for t in tables)
        raise DataError(
            f"no table has a column of times and two of ids, so none holds events ({looked}); "
            "deliver a table with a user, an item and a time in each row"
        )
    best, name = ranked[0], ranked[0].staged.table.name
    rivals = [t for t in ranked[1:] if name != "events" and t.staged.rows >= RIVAL * best.staged.rows]
    why = f"it has times and ids in {best.staged.rows:,} rows"
    why += "".join(f"; {t.staged.table.name} has them in {t.staged.rows:,}" for t in rivals)
    question = "Which table holds the events?"
    found = guesses.settle(Guess("events", question, name, why, not rivals, names, optional=False))
    return next(table for table in tables if table.staged.table.name == found)


def columns_of_ids(table: Looked, taken: set[str]) -> list[Column]:
    """Return the columns that could be ids: neither times nor fractions nor a few values.

    Args:
        table: the table.
        taken: columns that have a role already.
    """
    return [
        column
        for column in table.columns
        if column.name not in taken
        and column.name not in table.times
        and column.distinct >= LEAST_IDS
        and column.shapes["commas"] == column.shapes["clocks"] == 0
        and column.shapes["fractions"] <= column.filled // 1000
        and not any(value.startswith(("[", "{")) for value, _ in column.top)  # lists and objects
    ]


def _explain(table: Looked) -> str:
    """Say what may hide the times and the ids of a table: values in several forms, or no line of names."""
    said = ""
    for column in table.columns:
        times = [value for value, _ in column.top if re.fullmatch(SHAPES["iso"], value)]
        others = [value for value, _ in column.top if value not in times]
        if fit(column.name, "time") >= GOOD and column.name not in table.times and times and others:
            said += f"; the values of {column.name} have several forms: {times[0]!r}, {others[0]!r}"
    return said + explain_header(table)


def explain_header(table: Looked) -> str:
    """Say so if the first line of a file was not taken for the names of its columns; empty if it was."""
    if not table.staged.table.dialect.header:
        return ""
    path = table.staged.table.files[0]
    first = next(iter(read_text_lines(path, table.staged.table.dialect)), "")
    return (
        f"; the first line of {path}, {first[:60]!r}, was not taken for names of columns: remove the lines "
        "above the names, or give --header"
    )
