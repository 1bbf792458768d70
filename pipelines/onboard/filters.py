"""Propose which rows are events and which items are products: no cancelled rows, no postage."""

from __future__ import annotations

import re
from typing import Final

import duckdb

from pipelines.onboard.conditions import spark_name
from pipelines.onboard.facts import Column, quoted, text_of
from pipelines.onboard.guesses import some
from pipelines.onboard.looked import Looked, Roles
from pipelines.onboard.oddities import Note
from pipelines.onboard.words import words_of

CANCELLED: Final = re.compile(
    r"(?i).*(cancel|storn|refund|return(ed|s)?$|void|annul|reimburs|chargeback|retour|erstatt|devuel|devoluc|rimborso).*"
)
EMPTY: Final = "''"
YES: Final = ("1", "1.0", "true", "t", "yes", "y")
# Words of lines of a bill that are no products.
NO_PRODUCT: Final = re.compile(
    r"(?i)(^|[^a-z])(postage|post|porto|shipping|delivery|carriage|freight|versand(kosten)?|lieferung|livraison|"
    r"frais de port|spedizione|env[ií]o|gastos|handling|fee|fees|geb[üu]hr|commission|discount|rabatt|"
    r"remise|voucher|"
    r"gutschein|gift ?card|coupon|bank charges?|adjust(ment)?|manual|deposit|pfand|tip|donation|"
    r"spende|samples?|"
    r"surcharge|service charge|verzend(kosten)?|frakt|insurance|dotcom|bag charge|carrier bag)([^a-z]|$)"
)
# Ids that systems write where the user is not known.
NOBODY: Final = frozenset(
    (
        "na",
        "(none)",
        "none",
        "unknown",
        "anonymous",
        "anon",
        "guest",
        "undefined",
        "(not set)",
        "not set",
        "-",
        "?",
    )
)
NOBODY_SHARE: Final = 0.05  # of all rows
FREQUENT: Final = 200  # most frequent items that are looked at


def propose_filter(events: Looked, roles: Roles) -> tuple[list[str], list[Note]]:
    """Return conditions that rows should meet, and why: a user, a positive quantity, not cancelled."""
    parts, notes = [], []
    for role, name in (("user", roles.user), ("item", roles.item)):
        column = events.column(name)
        if missing := column.rows - column.filled:
            # In Parquet that is read where it is, empty text is no null.
            text = column.type == "VARCHAR" and events.staged.table.dialect.format == "parquet"
            parts.append(
                f"{f'nullif(trim({spark_name(name)}), {EMPTY})' if text else spark_name(name)} IS NOT NULL"
            )
            notes.append(
                Note(f"no_{role}", f"{missing:,} of {column.rows:,} rows have no {role}; they are left out")
            )
    if nobody := [
        value for value, count in events.column(roles.user).top if _is_nobody(value, count, events)
    ]:
        listed = ", ".join("'" + value + "'" for value in nobody)
        parts.append(f"CAST({spark_name(roles.user)} AS STRING) NOT IN ({listed})")
        said = f"the users {some(nobody)} are not known users; their rows are left out"
        notes.append(Note("no_user", said))
    if roles.quantity and (column := events.column(roles.quantity)).shapes["negative"]:
        parts.append(f"try_cast({spark_name(roles.quantity)} AS DOUBLE) > 0")
        count = column.shapes["negative"]
        said = f"{count:,} rows have a negative {roles.quantity}: cancellations; they are left out"
        notes.append(Note("cancellations", said))
    for column in events.columns:
        if column.name not in (roles.user, roles.item, roles.time, roles.label, roles.quantity):
            part, said = _filter_cancelled(column)
            if part:
                parts.append(part)
                notes.append(Note("cancellations", said))
    return parts, notes


def _is_nobody(value: str, count: int, events: Looked) -> bool:
    """Whether an id means that the user is not known: by its word, or as a 0 that has far too many rows."""
    often = count > NOBODY_SHARE * events.staged.rows
    return value.lower() in NOBODY or (often and value in ("0", "-1", "0.0", "-1.0"))


def _filter_cancelled(column: Column) -> tuple[str, str]:
    """Return a condition that leaves out cancelled rows, if a name or values say which they are."""
    values = [value.lower() for value, _ in column.top]
    text = f"lower(CAST({spark_name(column.name)} AS STRING))"
    if (
        0 < len(values) <= 2
        and set(values) & set(YES)
        and any(CANCELLED.fullmatch(w) for w in words_of(column.name))
    ):
        wrong = [value for value in values if value in YES]
    elif len(values) <= 40 and column.distinct <= 40:
        wrong = [value for value in values if CANCELLED.fullmatch(value)]
    else:
        wrong = []
    if not wrong or len(wrong) == len(values):
        return "", ""
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in wrong)
    count = sum(n for value, n in column.top if value.lower() in wrong)
    said = f"{count:,} rows have {column.name} {some(wrong)}; they are left out"
    return f"coalesce({text}, '') NOT IN ({listed})", said


def find_no_products(con: duckdb.DuckDBPyConnection, events: Looked, roles: Roles) -> list[tuple[str, str]]:
    """Return frequent items that are no products, each with the word that says so.

    Args:
        con: the connection with the tables.
        events: the table of events.
        roles: the columns of events.
    """
    texts = [
        column.name
        for column in events.columns
        if column.type == "VARCHAR" and not column.is_number and column.name not in events.times
        and column.distinct > 20 and column.name not in (roles.user, roles.session, roles.item)
    ]  # fmt: skip
    said = "".join(f", mode({text_of(name)})" for name in texts)
    rows = con.execute(
        f"SELECT {text_of(roles.item)} AS item, count(*) AS n {said} FROM {events.view} "
        f"WHERE {quoted(roles.item)} IS NOT NULL GROUP BY 1 ORDER BY n DESC, item LIMIT {FREQUENT}"
    ).fetchall()
    digits = [bool(re.search(r"\d", str(row[0]))) for row in rows]
    odd_ids = sum(digits) >= 0.8 * len(digits)  # ids have digits, so one without is a word
    found = []
    for row in rows:
        about = [str(cell) for cell in row[2:] if cell and len(str(cell)) <= 40]
        word = not re.search(r"\d", str(row[0])) and odd_ids
        match = next((text for text in [str(row[0]), *about] if NO_PRODUCT.search(text)), None)
        if match and (word or len(match.split()) <= 3 or match == str(row[0])):
            found.append((str(row[0]), match))
    return found
