"""Settle what values alone can't always tell: day and month, the zone, filters, no products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

import duckdb

from pipelines.onboard.conditions import duck_condition, find_unknown, with_numbers
from pipelines.onboard.dialect import DataError
from pipelines.onboard.entities import Entity
from pipelines.onboard.facts import Column, text_of
from pipelines.onboard.filters import CANCELLED, find_no_products, propose_filter
from pipelines.onboard.guesses import Guess, Guesses, some
from pipelines.onboard.looked import Looked, Roles
from pipelines.onboard.oddities import Note
from pipelines.onboard.staging import FILE, LINE
from pipelines.onboard.time_forms import TimeForm, says_offset
from pipelines.onboard.write_drops import find_folder_zone, time_rules
from pipelines.settings.ingest import NULLS
from pipelines.udfs.times import TimeRule, check_format, check_zone

IN_ORDER: Final = 2000  # first values of a file, which are often in the order of time


def settle_format(con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles, guesses: Guesses) -> TimeForm:
    """Settle how times are written; of two that fit, the order of rows tells which it is, or a person.

    Args:
        con: the connection with the tables.
        events: the table of events.
        roles: its columns.
        guesses: takes the guess and the answer.

    Raises:
        DataError: the answer is no format of times.
    """
    form = roles.form
    formats = (form.format, *form.also)
    best: str | None = form.format
    why = "it reads the values"
    if form.also:
        best = _by_order(con, events.view, roles.time, formats)
        why = "rows are in the order of time" if best else f"{some(formats)} all read the values"
    question, sure = "How are times written?", best is not None
    guess = Guess("time_format", question, best, why, sure, optional=False, example=formats[0])
    chosen = guesses.settle(guess)
    assert chosen is not None
    try:
        check_format(chosen)
    except ValueError as error:
        raise DataError(f"--time-format: {error}") from None
    if chosen == form.format:
        return form
    return TimeForm(chosen, says_offset(chosen))


def _by_order(con: duckdb.DuckDBPyConnection, view: str, time: str, formats: tuple[str, ...]) -> str | None:
    """Return the format by which the first rows are in the order of time, if only one of them is."""
    rows = con.execute(
        f"SELECT v FROM (SELECT {text_of(time)} AS v FROM {view} LIMIT {IN_ORDER}) WHERE v IS NOT NULL"
    ).fetchall()
    wrong: dict[str, float] = {}
    read: dict[str, list[int]] = {}
    for name in formats:
        times = [TimeRule(name).read_micros(str(row[0])) for row in rows]
        known = [each for each in times if each is not None]
        read[name] = known
        wrong[name] = sum(b < a for a, b in pairwise(known)) / max(1, len(known))
    if all(times == read[formats[0]] for times in read.values()):
        return formats[0]
    ranked = sorted(formats, key=lambda name: wrong[name])
    clear = wrong[ranked[0]] <= 0.01 and wrong[ranked[1]] >= max(0.02, 3 * wrong[ranked[0]])
    return ranked[0] if clear else None


def settle_zone(events: Looked, roles: Roles, guesses: Guesses) -> str:
    """Settle the zone of times without an offset.

    Args:
        events: the table of events.
        roles: its columns.
        guesses: takes the guess and the answer.

    Raises:
        DataError: the answer is no time zone.
    """
    if roles.form.zoned:
        _check_zone(guesses.given.get("timezone", "UTC"))  # it has no effect, but a mistake is a mistake
        return "UTC"
    column = events.column(roles.time)
    dates = column.type == "DATE" or (column.type == "VARCHAR" and _are_dates(column))
    why = "times are dates" if dates else "times say no offset, and nothing tells the zone"
    question = "In which time zone were times written (such as Europe/Berlin)?"
    zone = guesses.settle(Guess("timezone", question, "UTC", why, dates, optional=False))
    assert zone is not None
    return _check_zone(zone)


def _check_zone(zone: str) -> str:
    try:
        return check_zone(zone)
    except ValueError as error:
        raise DataError(f"--timezone: {error}") from None


def settle_folder_zone(events: Looked, roles: Roles, zone: str, guesses: Guesses) -> str:
    """Settle whose midnights cut the folders of days.

    Args:
        events: the table of events, whose files lie in folders of days.
        roles: its columns.
        zone: the zone of times without an offset.
        guesses: takes the guess and the answer.
    """
    if not roles.form.zoned:
        return zone
    found = find_folder_zone(events, roles.time, time_rules(roles.form.format, zone, frozenset(NULLS)))
    why = "the times of events and their folders say so"
    question = "Whose midnights cut the folders of days?"
    guess = Guess("folder_timezone", question, found, why, found == "UTC", optional=False)
    return guesses.settle(guess) or "UTC"


def _are_dates(column: Column) -> bool:
    return bool(column.top) and all(len(value) <= 10 for value, _ in column.top)


def settle_filter(events: Looked, roles: Roles, guesses: Guesses) -> tuple[list[str], list[str]]:
    """Settle which rows are events; return the conditions and their reasons.

    Args:
        events: the table of events.
        roles: its columns.
        guesses: takes the guess and the answer.
    """
    parts, notes = propose_filter(events, roles)
    said = [note.said for note in notes]
    guess = Guess(
        "where", "Which rows are events?", " AND ".join(parts) or None, "; ".join(said) or "all are"
    )
    chosen = guesses.settle(guess)
    if chosen == (" AND ".join(parts) or None):
        return parts, said
    return ([chosen], []) if chosen else ([], [])


def try_filter(
    con: duckdb.DuckDBPyConnection, events: Looked, where: Sequence[str]
) -> tuple[str, list[Note]]:
    """Return a filter as DuckDB reads it; empty, with a note, if only Spark can read it.

    Text that is compared with a number counts as a number, as in Spark.

    Args:
        con: the connection with the tables.
        events: the table of events.
        where: the conditions of the filter.

    Raises:
        DataError: the filter names a column that events do not have.
    """
    condition = duck_condition(" AND ".join(where)) or "true"
    if where and (unknown := find_unknown(" AND ".join(where), events.names)):
        raise DataError(
            f"the filter {' AND '.join(where)!r} names the column {unknown!r}, which events do not have; "
            f"they have {some(events.names)}"
        )
    numbers = [c.name for c in events.columns if c.is_number and c.type == "VARCHAR"]
    typed = with_numbers(events.view, numbers)
    by_row = f"({FILE}, {LINE}) IN (SELECT ({FILE}, {LINE}) FROM ({typed}) WHERE {condition})"
    said = ""
    for tried in (condition, by_row):
        try:
            con.execute(f"SELECT count(*) FROM {events.view} WHERE {tried}").fetchone()
        except duckdb.Error as error:
            said = said or str(error).splitlines()[0].partition(": ")[2]
        else:
            return tried, []
    return "", [Note("filter", f"only Spark can evaluate the filter, so all rows were counted here ({said})")]


def keep_events(con: duckdb.DuckDBPyConnection, events: Looked, condition: str) -> Looked:
    """Return the events that a filter keeps, as a table.

    Args:
        con: the connection with the tables.
        events: the table of events.
        condition: the filter as DuckDB reads it.
    """
    where = f" WHERE {condition}" if condition else ""
    con.execute(f"CREATE OR REPLACE VIEW kept_events AS SELECT * FROM {events.view}{where}")
    return replace(events, view="kept_events")


def settle_eligible(
    con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles, id_type: str, guesses: Guesses
) -> tuple[str | None, str]:
    """Settle which items may be in lists: not those that are no products, such as postage.

    Args:
        con: the connection with the tables.
        events: the table of events.
        roles: its columns.
        id_type: the type of the ids of items.
        guesses: takes the guess and the answer.
    """
    found = find_no_products(con, events, roles)
    ids = [item if id_type == "long" else "'" + item.replace("'", "''") + "'" for item, _ in found]
    condition = f"item_id NOT IN ({', '.join(ids)})" if ids else None
    why = "frequent items that are no products: " + some([f"{item} ({word})" for item, word in found])
    guess = Guess(
        "eligible", "Which items may be in lists?", condition, why if ids else "all may", sure=not ids
    )
    chosen = guesses.settle(guess)
    return chosen, why if ids and chosen == condition else "which items may be in lists"


def choose_id_type(events: Looked, name: str, entity: Entity) -> str:
    """Choose `long` if every id is a whole number without zeros in front, in events and in its own table.

    Args:
        events: the table of events.
        name: its column of the id.
        entity: the table of items or users.
    """
    columns = [events.column(name)]
    if entity.table is not None:
        columns.append(entity.table.column(entity.key))
    return "long" if all(column.is_whole for column in columns) else "string"


def list_event_types(events: Looked, roles: Roles) -> list[str]:
    """List the types of events that are no cancellations, the most frequent first."""
    if not roles.event_type:
        return ["event"]
    values = [value for value, _ in events.column(roles.event_type).top]
    return [value for value in values if not CANCELLED.fullmatch(value)] or values
