"""Find what is odd in events, such as bots, repeated rows, and users without a history."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import duckdb

from pipelines.onboard.conditions import spark_name
from pipelines.onboard.facts import text_of
from pipelines.onboard.guesses import some
from pipelines.onboard.looked import Looked, Roles
from pipelines.onboard.words import words_of

ONE_USER: Final = 0.01  # the share of all events from which one user is odd
SHORT: Final = 0.01  # of all users
RATINGS: Final = frozenset(
    ["rating", "ratings", "rate", "stars", "star", "score", "grade", "note", "bewertung", "sterne", "overall"]
)
FAR: Final = 50  # times the median number of events


class Note(NamedTuple):
    """Something that a person should know."""

    what: str  # a word for programs, such as `duplicates`
    said: str


def find_oddities(con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles) -> list[Note]:
    """Return what is odd about events: bots, duplicates, and ids that were written as floats.

    Args:
        con: the connection with the tables.
        events: the table of events.
        roles: its columns.
    """
    notes = []
    for role, name in (("user", roles.user), ("item", roles.item)):
        if floats := events.column(name).shapes["floats"]:
            said = f"{floats:,} values of {name} are written like 17850.0; they count as 17850"
            notes.append(Note(f"float_{role}", said))
    return [*notes, *_find_bots(con, events, roles), *_find_duplicates(con, events, roles)]


def find_short_histories(con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles) -> list[Note]:
    """Say so if nearly no user has two events, as a model reads histories and there are none.

    Args:
        con: the connection with the tables.
        events: the events that are kept.
        roles: their columns.
    """
    row = con.execute(
        f"SELECT count(*), count(*) FILTER (n > 1) FROM (SELECT {text_of(roles.user)} AS u, count(*) AS n "
        f"FROM {events.view} GROUP BY 1) WHERE u IS NOT NULL"
    ).fetchone()
    if row is None or row[1] > SHORT * row[0]:
        return []
    said = (
        f"only {row[1]:,} of {row[0]:,} users have more than one event, so there is no history to learn from"
    )
    return [Note("short_histories", f"{said}; see whether {roles.user} is the column of the user")]


def find_ratings(events: Looked, names: Sequence[str]) -> list[Note]:
    """Say that ratings are not used, and how the low ones are left out.

    Args:
        events: the table of events.
        names: the columns that nothing reads.
    """
    notes = []
    for column in map(events.column, names):
        few, most = column.is_number and 3 <= column.distinct <= 21, column.most or 0.0
        if few and set(words_of(column.name)) & RATINGS and (column.least or 0) >= 0:
            high = 0.7 * most if most > 10 else math.ceil(0.7 * most)
            said = f"each rating counts as one event, whatever its {column.name}; to leave out the low ones,"
            notes.append(Note("ratings", f"{said} give --where '{spark_name(column.name)} >= {high:g}'"))
    return notes


def _find_bots(con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles) -> list[Note]:
    rows = con.execute(
        f"WITH u AS (SELECT {text_of(roles.user)} AS u, count(*) AS n FROM {events.view} GROUP BY 1) "
        "SELECT u, n, (SELECT median(n) FROM u), (SELECT count(*) FROM u), (SELECT sum(n) FROM u) FROM u "
        "WHERE u IS NOT NULL ORDER BY n DESC LIMIT 5"
    ).fetchall()
    wrong = [row for row in rows if row[1] > FAR * row[2] and row[1] > ONE_USER * row[4] and row[3] >= 50]
    if not wrong:
        return []
    shown = some([f"{row[0]} ({row[1]:,} events)" for row in wrong])
    usual = f"more than {FAR} times the usual {wrong[0][2]:g} events"
    said = f"users that may be bots or staff, as they have {usual}: {shown}"
    return [Note("bots", said)]


def _find_duplicates(con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles) -> list[Note]:
    names = [name for name in (roles.user, roles.item, roles.time, roles.event_type, roles.session) if name]
    keys = ", ".join(text_of(name) for name in names)
    label = f", count(DISTINCT {text_of(roles.label)}) AS d" if roles.label else ", 1 AS d"
    row = con.execute(
        f"SELECT sum(n), count(*), sum(CASE WHEN d > 1 THEN n ELSE 0 END) "
        f"FROM (SELECT count(*) AS n {label} FROM {events.view} GROUP BY {keys})"
    ).fetchone()
    if row is None or row[0] is None or row[0] == row[1]:
        return []
    said = (
        f"{int(row[0] - row[1]):,} of {int(row[0]):,} rows repeat another one in {', '.join(names)}; "
        "they count once, or as often as they are there with ingest.events.identical: each"
    )
    notes = [Note("duplicates", said)]
    if row[2] > 0.005 * row[0]:
        notes.append(
            Note("contradictions", f"{int(row[2]):,} such rows have both labels; each counts as an event")
        )
    return notes


def missing_days(days: Sequence[str]) -> list[str]:
    """Return the days between the first and the last one that are not there."""
    if not days:
        return []
    first, last = dt.date.fromisoformat(min(days)), dt.date.fromisoformat(max(days))
    every = [str(first + dt.timedelta(days=i)) for i in range((last - first).days + 1)]
    return sorted(set(every) - set(days))
