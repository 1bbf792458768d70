"""Guess how a column writes times: ISO 8601, seconds since 1970 in some unit, or a pattern of day and month.

A guess reads every value of the column; if two patterns read them all, only a person knows which is right.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import duckdb

from pipelines.onboard.facts import Column, quoted, text_of
from pipelines.onboard.words import fit, words_of
from pipelines.udfs.times import AUTO, EPOCHS, TimeRule, to_python

# Instants of 1990 to 2050 in seconds, and how many units of each epoch are in a second.
EARLIEST, LATEST = 631_152_000, 2_524_608_000
UNITS: Final = {
    "epoch_seconds": 1,
    "epoch_millis": 1_000,
    "epoch_micros": 1_000_000,
    "epoch_nanos": 1_000_000_000,
}
DAYS: Final = (
    "dd.MM.yyyy", "dd/MM/yyyy", "MM/dd/yyyy", "dd-MM-yyyy", "MM-dd-yyyy", "yyyy/MM/dd",
    "yyyy.MM.dd", "yyyyMMdd", "dd.MM.yy", "dd/MM/yy", "MM/dd/yy", "dd MMM yyyy", "dd-MMM-yyyy",
    "MMM dd, yyyy", "dd MMMM yyyy", "MMMM dd, yyyy",
)  # fmt: skip
CLOCKS: Final = (
    "", " HH:mm", " HH:mm:ss", " HH:mm:ss.SSS", " hh:mm a", " hh:mm:ss a", "'T'HH:mm:ss",
    " HH:mm:ss Z", " HH:mm:ss XXX", ", HH:mm", ", HH:mm:ss",
)  # fmt: skip
MORE: Final = (
    "EEE MMM dd HH:mm:ss Z yyyy", "EEE, dd MMM yyyy HH:mm:ss Z", "dd/MMM/yyyy:HH:mm:ss Z",
    "EEE MMM dd HH:mm:ss yyyy",
)  # fmt: skip
PATTERNS: Final = (
    *(day + clock for day in DAYS for clock in CLOCKS), "yyyyMMddHHmmss", "yyyyMMddHHmm", *MORE
)  # fmt: skip
SAMPLE: Final = 3000  # values that patterns are tried on
ENOUGH: Final = 0.98  # share of the values that a form must read; the others are bad rows


class TimeForm(NamedTuple):
    """How a column writes times."""

    format: str  # as `ingest.timestamp.format`
    zoned: bool  # whether every value says its offset, or needs none
    also: tuple[str, ...] = ()  # other patterns that read the values as well


def find_form(con: duckdb.DuckDBPyConnection, view: str, column: Column) -> TimeForm | None:
    """Return how a column writes times; None if it holds no times.

    Args:
        con: the connection with the table.
        view: the table.
        column: what is known of the column.
    """
    if column.filled == 0:
        return None
    if column.type.startswith("TIMESTAMP") or column.type == "DATE":
        return TimeForm(AUTO, "TIME ZONE" in column.type)
    if (
        column.share("numbers") >= ENOUGH
        and not _names_an_id(column.name)
        and (epoch := _find_epoch(con, view, column))
    ):
        return TimeForm(epoch, True)
    if column.share("iso") >= ENOUGH:
        return TimeForm(
            AUTO, column.shapes["zoned"] >= column.shapes["iso"] * ENOUGH and _has_offsets(column)
        )
    if column.share("whole") >= ENOUGH and not (column.top and len(column.top[0][0]) in (8, 12, 14)):
        return None
    return _find_pattern(_sample(con, view, column))


def says_offset(form: str) -> bool:
    """Whether every value of a format says its offset, as `%z` does, or needs none, as an epoch does."""
    return form in EPOCHS or (form != AUTO and "%z" in to_python(form))


def _names_an_id(name: str) -> bool:
    """Whether a name says that numbers as large as times are ids, as those of some services are."""
    known = max(fit(name, "user"), fit(name, "item"), fit(name, "session"))
    return known > fit(name, "time") or (fit(name, "time") < 1 and words_of(name)[-1:] in (["id"], ["ids"]))


def _has_offsets(column: Column) -> bool:
    """Whether the values have a clock at all: the end of a date such as `-01` is no offset."""
    return any(len(value) > 12 for value, _ in column.top)


def _find_epoch(con: duckdb.DuckDBPyConnection, view: str, column: Column) -> str | None:
    low, high = con.execute(
        f"SELECT quantile_disc(v, 0.01), quantile_disc(v, 0.99) FROM (SELECT TRY_CAST({text_of(column.name)} "
        f"AS DOUBLE) AS v FROM {view})"
    ).fetchone() or (None, None)
    if low is None:
        return None
    for name in EPOCHS:
        if EARLIEST * UNITS[name] <= low <= high <= LATEST * UNITS[name]:
            return name
    return None


def _sample(con: duckdb.DuckDBPyConnection, view: str, column: Column) -> list[str]:
    """Return values from the whole column: its extremes, and others in the order of their hash."""
    text = text_of(column.name)
    rows = con.execute(
        f"SELECT DISTINCT v FROM (SELECT {text} AS v FROM {view} WHERE {quoted(column.name)} IS NOT NULL) "
        f"WHERE v IS NOT NULL ORDER BY hash(v) LIMIT {SAMPLE}"
    ).fetchall()
    return [str(row[0]) for row in rows]


def _find_pattern(values: list[str]) -> TimeForm | None:
    if not values:
        return None
    first = [
        p for p in PATTERNS if sum(_reads(p, value) for value in values[:20]) >= 0.9 * min(20, len(values))
    ]
    counts = {pattern: sum(_reads(pattern, value) for value in values) for pattern in first}
    good = [pattern for pattern, count in counts.items() if count >= ENOUGH * len(values)]
    if not good:
        return None
    most = max(counts[pattern] for pattern in good)
    best = [pattern for pattern in good if counts[pattern] == most]
    return TimeForm(best[0], says_offset(best[0]), tuple(best[1:]))


def _reads(pattern: str, value: str) -> bool:
    found = TimeRule(pattern).read_local(value)
    return found is not None and 1990 <= found.year <= 2050
