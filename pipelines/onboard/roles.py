"""Guess which columns of events are the user, the item, the time, the type, the session and the label.

A name alone decides nothing: a user or item is a column that could be an id, a time one whose values are
times, and a label one with two values.
"""

from __future__ import annotations

from typing import Final

import duckdb

from pipelines.onboard.facts import Column, follows, quoted, text_of
from pipelines.onboard.guesses import Guess, Guesses, some
from pipelines.onboard.looked import GOOD, LEAST_IDS, Looked, Roles, columns_of_ids, explain_header
from pipelines.onboard.time_forms import TimeForm
from pipelines.onboard.words import fit

MOST_TYPES: Final = 40  # distinct types of events
LABELS: Final = frozenset({"0", "1", "0.0", "1.0", "true", "false"})  # what ingest reads as a label


def guess_roles(con: duckdb.DuckDBPyConnection, table: Looked, guesses: Guesses) -> Roles:
    """Guess the columns of events.

    Args:
        con: the connection with the tables.
        table: the table of events.
        guesses: takes the guesses and the answers.

    Raises:
        DataError: the data does not show which column is the time, the user or the item.
    """
    time = _settle_time(table, guesses)
    user = _settle_id(con, table, "user", {time}, guesses)
    item = _settle_id(con, table, "item", {time, user}, guesses)
    taken = {time, user, item}
    form = table.times.get(time) or TimeForm("iso", False)
    event_type = _settle_optional(table, "type", taken, guesses, _is_type)
    session = _settle_session(con, table, (user, taken | {event_type}), guesses)
    label = _settle_optional(table, "label", taken | {event_type, session}, guesses, _is_label)
    number = [c for c in table.columns if c.is_number and c.name not in taken | {session, label}]
    quantity = max(number, key=lambda c: fit(c.name, "quantity"), default=None)
    counted = quantity.name if quantity and fit(quantity.name, "quantity") >= GOOD else ""
    return Roles(user, item, time, form, event_type, session, label, counted)


def _settle_time(table: Looked, guesses: Guesses) -> str:
    # Of a date and a time of equal names, the time has more values.
    ranked = sorted(
        table.times, key=lambda n: (n != table.joined, -fit(n, "time"), -table.column(n).distinct)
    )
    alone = len(ranked) == 1 or bool(table.joined)
    sure = alone or (bool(ranked) and fit(ranked[0], "time") > fit(ranked[1], "time"))
    why = f"its values are times ({table.times[ranked[0]].format})" if ranked else "no column holds times"
    guess = Guess("time", "Which column is the time of an event?", ranked[0] if ranked else None, why, sure,
                  tuple(table.names), optional=False)  # fmt: skip
    found = guesses.settle(guess)
    assert found is not None
    return found


def _settle_id(
    con: duckdb.DuckDBPyConnection, table: Looked, role: str, taken: set[str], guesses: Guesses
) -> str:
    """Settle the column of users or items: by its name, or else by its place and its number of values."""
    ids = columns_of_ids(table, taken)
    other = {"user": "item", "item": "user"}[role]
    scored = sorted(ids, key=lambda c: (fit(c.name, other) - fit(c.name, role), -c.distinct))
    named = [column for column in scored if fit(column.name, role) >= 0.5]
    named.sort(key=lambda column: (-fit(column.name, role), -column.distinct))
    question = f"Which column is the {role}?"
    likely = [c.name for c in sorted(ids, key=lambda c: (c.is_number, -c.distinct))]
    choices = tuple(dict.fromkeys([*likely, *(name for name in table.names if name not in taken)]))
    if named:
        best, rest = named[0], named[1:]
        sure = (
            not rest or fit(best.name, role) > fit(rest[0].name, role) or best.distinct > 2 * rest[0].distinct
        )
        why = f"by its name and about {best.distinct:,} distinct values"
        guess = Guess(role, question, best.name, why, sure, choices, optional=False)
    else:
        unnamed = [c for c in ids if fit(c.name, other) < 0.5 and _looks_like_id(c)]
        unnamed = _without_followers(con, table.view, unnamed)
        # A log is written as user, item and more; without names, two columns of ids are taken so.
        wanted = 2 if role == "user" and not any(fit(c.name, other) >= 0.5 for c in ids) else 1
        clear = len(unnamed) == wanted
        why = (
            "it is the first column of ids that is left"
            if clear
            else (
                f"no name says it, and these columns could be it: {some([c.name for c in unnamed])}"
                if unnamed
                else "no name says it, and no column has the values of ids" + explain_header(table)
            )
        )
        guess = Guess(role, question, unnamed[0].name if clear else None, why, False, choices, optional=False)
    found = guesses.settle(guess)
    assert found is not None
    return found


def _without_followers(con: duckdb.DuckDBPyConnection, view: str, columns: list[Column]) -> list[Column]:
    """Leave out columns that follow from one before them, such as the category or the name of an item."""
    kept: list[Column] = []
    for column in columns:
        if not any(follows(con, view, before.name, column) >= 0.95 for before in kept):
            kept.append(column)
    return kept


def _looks_like_id(column: Column) -> bool:
    """Whether a column without a telling name could be an id: it has more values than a rating or a count."""
    return column.distinct > 20 and column.filled == column.rows


def _settle_optional(table: Looked, role: str, taken: set[str], guesses: Guesses, fits: object) -> str:
    """Settle a column that a log may lack: one with a telling name and fitting values."""
    assert callable(fits)
    columns = [c for c in table.columns if c.name not in taken and c.name not in table.times and fits(c)]
    columns = [column for column in columns if fit(column.name, role) >= GOOD]
    columns.sort(key=lambda column: -fit(column.name, role))
    option = {"type": "event_type", "label": "label"}[role]
    question = {"type": "Which column is the type of an event?", "label": "Which column is the label?"}[role]
    best = columns[0] if columns else None
    why = (
        f"its values are {some([value for value, _ in best.top[:6]])}" if best else "no column looks like one"
    )
    choices = ("none", *table.names)
    return guesses.settle(Guess(option, question, best.name if best else None, why, choices=choices)) or ""


def _is_type(column: Column) -> bool:
    return 2 <= column.distinct <= MOST_TYPES and not column.is_number and not _is_label(column)


def _is_label(column: Column) -> bool:
    values = {value.lower() for value, _ in column.top}
    return len(values) == 2 and values <= LABELS


def _settle_session(
    con: duckdb.DuckDBPyConnection, table: Looked, about: tuple[str, set[str]], guesses: Guesses
) -> str:
    """Settle the column of sessions: one with a telling name whose values belong to one user each."""
    user, taken = about
    columns = [c for c in table.columns if c.name not in taken and c.name not in table.times]
    columns = [c for c in columns if fit(c.name, "session") >= GOOD and c.distinct >= LEAST_IDS]
    columns = [c for c in columns if not c.shapes["commas"]]
    best, why = None, "no column looks like one"
    for column in sorted(columns, key=lambda c: -fit(c.name, "session")):
        share = _share_of_one_user(con, table.view, column.name, user)
        if share >= 0.95:
            best, why = column.name, f"by its name, and {share:.1%} of its values belong to one user"
            break
    choices = ("none", *table.names)
    return guesses.settle(Guess("session", "Which column is the session?", best, why, choices=choices)) or ""


def _share_of_one_user(con: duckdb.DuckDBPyConnection, view: str, session: str, user: str) -> float:
    row = con.execute(
        "SELECT avg(CASE WHEN n <= 1 THEN 1.0 ELSE 0.0 END) "
        f"FROM (SELECT count(DISTINCT {text_of(user)}) AS n FROM {view} "
        f"WHERE {quoted(session)} IS NOT NULL GROUP BY {quoted(session)})"
    ).fetchone()
    return float(row[0]) if row and row[0] is not None else 0.0
