"""Draw a few example lists of a night, with what their users took last, without reading all lists."""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow.dataset as ds

from pipelines.report.night_report import NightReport
from pipelines.report.tables import column_names, read_first_rows, read_rows
from pipelines.schemas import (
    DS,
    EVENT_TS,
    ITEM_ID,
    POLICY,
    RUN_ID,
    SUPERSEDED_BY,
    USER_ID,
    VALID_FROM,
    VALID_TO,
)
from pipelines.settings.settings import Settings

USERS, ITEMS, LAST_EVENTS = 6, 10, 5
DRAWN_FROM = 200  # rows that are read; the users are spread over them
# Days of the log that are read: the second many only for users with few events in the first.
LOOK_BACK = (28, 91)
NAMES = ("name", "title", "description")  # text columns that name an item if the settings say nothing
# Characters that would change the order of the text around them.
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")

HIDDEN = ("Cc", "Zl", "Zp", "Cs", "Cn")  # Unicode categories: controls, line breaks, and what is no character


class Item(NamedTuple):
    """An item as a person reads it."""

    text: str  # the name, or the id if the item has no name
    id: str  # empty if the text is the id
    again: bool = False  # whether the user took it in the four weeks before the night


class ExampleList(NamedTuple):
    """The list of one user, next to what the user took last."""

    user: str
    fault: str  # why there is no list; empty if there is one
    items: list[Item]  # the first of the list
    length: int
    last: list[tuple[str, Item]]  # the day and the item of the last events, the newest first


def draw_examples(settings: Settings, report: NightReport, policy: str) -> list[ExampleList]:
    """Draw example lists of a night: published ones, or else what the run has staged.

    Args:
        settings: the settings of the warehouse.
        report: the report of the night.
        policy: the policy whose lists are published.
    """
    day = dt.date.fromisoformat(report.night)
    rows = _read_lists(settings, report, policy)
    chosen = [rows[place * (len(rows) - 1) // max(USERS - 1, 1)] for place in range(USERS)] if rows else []
    lists = {row[USER_ID]: row for row in chosen}  # fewer users than `USERS` are drawn once each
    events = _last_events(settings, day, list(lists))
    tops = {
        user: [each["item_id"] for each in (row["candidates"] or [])[:ITEMS]] for user, row in lists.items()
    }
    taken = {event[ITEM_ID] for mine in events.values() for event in mine[:LAST_EVENTS]}
    names = _name_items(settings, day, {item for top in tops.values() for item in top} | taken)
    lately = day - dt.timedelta(days=LOOK_BACK[0])
    again = {user: {event[ITEM_ID] for event in mine if event[DS] >= lately} for user, mine in events.items()}

    def item(user: Any, item_id: Any) -> Item:
        name, shown = names.get(item_id), show_id(item_id)
        taken_lately = item_id in again[user]
        return Item(show_id(name), shown, taken_lately) if name else Item(shown, "", taken_lately)

    return [
        ExampleList(
            user=show_id(user),
            fault=show_id(row["fault"] or ""),
            items=[item(user, item_id) for item_id in tops[user]],
            length=len(row["candidates"] or []),
            last=[(str(event[DS]), item(user, event[ITEM_ID])) for event in events[user][:LAST_EVENTS]],
        )
        for user, row in lists.items()
    ]


def _read_lists(settings: Settings, report: NightReport, policy: str) -> list[dict[str, Any]]:
    """Read the first lists of a night in the order of their users: published ones, or else staged ones."""
    columns = [USER_ID, "candidates", "fault"]
    if report.in_force:
        mine = ds.field(DS) == dt.date.fromisoformat(report.night)
        rows = read_first_rows(settings, "recommendations", columns, mine, DRAWN_FROM)
    elif report.run_id and report.scoring:
        mine = (ds.field(RUN_ID) == report.run_id) & (ds.field(POLICY) == policy)
        rows = read_first_rows(settings, "staging", columns, mine, DRAWN_FROM)
    else:
        rows = []
    return sorted(rows, key=lambda row: row[USER_ID])


def show_id(value: object) -> str:
    """Show an id on one line: control characters and those that turn text around are written as escapes."""
    return "".join(_escape(char) if _hides(char) else char for char in str(value))


def _hides(char: str) -> bool:
    return char in BIDI or unicodedata.category(char) in HIDDEN


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _last_events(settings: Settings, night: dt.date, users: list[Any]) -> dict[Any, list[dict[str, Any]]]:
    """Read the newest events of some users before a night, from few days of the log."""
    found: dict[Any, list[dict[str, Any]]] = {user: [] for user in users}
    until, columns = night, [USER_ID, ITEM_ID, EVENT_TS, DS, SUPERSEDED_BY]
    for days in LOOK_BACK:
        since, needy = night - dt.timedelta(days=days), [u for u, e in found.items() if len(e) < LAST_EVENTS]
        if not needy:
            break
        wanted = [(DS, ">=", since), (DS, "<", until), (USER_ID, "in", needy)]
        rows = [row for row in read_rows(settings, "events", columns, wanted) if row[SUPERSEDED_BY] is None]
        for row in sorted(rows, key=lambda row: (row[EVENT_TS], row[ITEM_ID]), reverse=True):
            found[row[USER_ID]].append(row)
        until = since
    return found


def _name_items(settings: Settings, night: dt.date, items: Iterable[Any]) -> dict[Any, str]:
    """Find the names of items as of the day before a night, in the columns that make up a name."""
    types, wanted = column_names(settings, "items"), list(items)
    columns = [each for each in settings.report.item_name if each in types] or [
        each for each in NAMES if types.get(each) == "string"
    ][:1]
    if not columns or not wanted:
        return {}
    day = night - dt.timedelta(days=1)
    filters = [(ITEM_ID, "in", wanted), (VALID_FROM, "<=", day)]
    rows = read_rows(settings, "items", [ITEM_ID, VALID_TO, *columns], filters)
    valid = (row for row in rows if row[VALID_TO] is None or row[VALID_TO] > day)
    return {row[ITEM_ID]: _join(row[column] for column in columns) for row in valid}


def _join(values: Iterable[Any]) -> str:
    """Join the parts of a name that are not blank; a list of texts is joined by commas."""
    texts = (", ".join(map(str, each)) if isinstance(each, list) else str(each) for each in values if each)
    return " ".join(text.strip() for text in texts if text.strip())
