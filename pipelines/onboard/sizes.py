"""Choose what a model and a night need to know of the data: sizes of a recipe, and the length of lists.

The defaults of the settings are for logs of a year; a shorter or smaller log needs smaller values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import duckdb

from pipelines.onboard.entities import Entity
from pipelines.onboard.facts import text_of
from pipelines.onboard.looked import Looked, Roles

ENOUGH: Final = 0.8  # the share of events that items with an embedding of their own should have
MANY_USERS: Final = 50_000  # users from which a night has the usual number of work units
LONGEST_LIST: Final = 100


@dataclass(frozen=True)
class Amounts:
    """How much data there is, of the rows that the filter keeps."""

    rows: int
    users: int
    items: int
    events_of_user: float  # the median
    days: int  # from the first day to the last
    buyers: dict[int, float]  # the share of events of items with at least so many users


def measure(
    con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles, condition: str, days: int
) -> Amounts:
    """Count users, items and events.

    Args:
        con: the connection with the tables.
        events: the table of events.
        roles: its columns.
        condition: the filter as DuckDB reads it; empty for none.
        days: the days from the first one to the last.
    """
    kept = f"SELECT {text_of(roles.user)} AS u, {text_of(roles.item)} AS i FROM {events.view}"
    kept += f" WHERE {condition}" if condition else ""
    con.execute(f"CREATE OR REPLACE TEMP TABLE kept_rows AS {kept}")
    con.execute("CREATE OR REPLACE TEMP TABLE kept_items AS SELECT i, count(*) AS n, count(DISTINCT u) AS b "
                "FROM kept_rows WHERE i IS NOT NULL GROUP BY i")  # fmt: skip
    users = con.execute(
        "SELECT count(*), coalesce(median(n), 0), coalesce(sum(n), 0) "
        "FROM (SELECT count(*) AS n FROM kept_rows WHERE u IS NOT NULL GROUP BY u)"
    ).fetchone()
    shares = con.execute(
        "SELECT count(*), "
        + ", ".join(f"sum(CASE WHEN b >= {b} THEN n ELSE 0 END) / sum(n)" for b in (8, 5, 3, 2))
        + " FROM kept_items"
    ).fetchone()
    assert users is not None
    assert shares is not None
    buyers = {b: float(share or 0) for b, share in zip((8, 5, 3, 2), shares[1:], strict=True)}
    return Amounts(int(users[2]), int(users[0]), int(shares[0]), float(users[1]), days, buyers)


def choose_training(amounts: Amounts, *, labelled: bool) -> dict[str, Any]:
    """Return the part of a model's settings that differs from the defaults because of the data.

    Args:
        amounts: how much data there is.
        labelled: whether the model learns labels.
    """
    chosen: dict[str, Any] = {}
    buyers = next((b for b in (8, 5, 3, 2) if amounts.buyers[b] >= ENOUGH), 1)
    if buyers != 8:
        chosen["min_buyers"] = buyers
    if labelled:
        days = min(14, max(1, amounts.days // 5))
        return chosen | {"labels": {"valid_days": days} if days != 14 else {}}
    train: dict[str, Any] = {}
    horizon = min(28, max(1, amounts.days // 4))
    first = min(270, max(horizon, amounts.days * 3 // 4))
    if horizon != 28:
        train["horizon_days"] = horizon
    if first != 270:
        train["first_cut_days"] = first
    if amounts.days < 56:
        train["cut_every_days"] = 1
    events = int(min(20, max(2, amounts.events_of_user // 2)))
    if events != 20:
        train["min_events"] = events
    return chosen | ({"train": train} if train else {})


def choose_night(amounts: Amounts, cold_share: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sizes of a night, and limits of audits that the data needs.

    Args:
        amounts: how much data there is.
        cold_share: the share of users without events.
    """
    night: dict[str, Any] = {"k": min(LONGEST_LIST, max(5, amounts.items // 10), max(1, amounts.items))}
    if amounts.users < MANY_USERS:
        night["buckets"] = 4
    audits = {"max_cold_share": min(1.0, round(cold_share + 0.1, 2))} if cold_share > 0.45 else {}
    return night, audits


def cold_share(con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles, users: Entity) -> float:
    """Return the share of users without events.

    Args:
        con: the connection with the tables.
        events: the table of events.
        roles: its columns.
        users: where users come from.
    """
    if users.table is None:
        return 0.0
    row = con.execute(
        f"SELECT avg(CASE WHEN e.u IS NULL THEN 1.0 ELSE 0.0 END) FROM "
        f"(SELECT DISTINCT {text_of(users.key)} AS u FROM {users.table.view}) t "
        f"LEFT JOIN (SELECT DISTINCT {text_of(roles.user)} AS u FROM {events.view}) e USING (u)"
    ).fetchone()
    return float(row[0]) if row and row[0] is not None else 0.0
