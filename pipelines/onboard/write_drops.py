"""Write daily drops from staged tables: each row goes, unchanged, into the folder of its UTC day.

Three things are written anew: text that means null is null, a decimal comma is a point, and a text of several
values becomes a list. Rows in are rows out and rows that are named as unreadable, with file and line.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.onboard.dialect import DataError
from pipelines.onboard.entities import Entity
from pipelines.onboard.facts import plain_value, quoted, text_of
from pipelines.onboard.looked import Looked
from pipelines.onboard.staging import FILE, LINE, BadRow
from pipelines.udfs.times import FIRST_DAY, LAST_DAY, TimeRule
from pipelines.udfs.value_columns import read_column
from pipelines.udfs.values import ValueRules, WantedColumn

EPOCH: Final = dt.date(1970, 1, 1)
DAY: Final = 86_400_000_000  # microseconds
DAY_COLUMN: Final = "_day"
COPY_OPTIONS: Final = "FORMAT parquet, COMPRESSION zstd"


def add_days(events: Looked, time: str, rules: ValueRules) -> list[BadRow]:
    """Add the UTC day of each row to the staged files of events; return the rows that no drop can hold.

    Those have a time that can't be read, that is outside the days of drops, or that is in the future while
    most rows are not.

    Args:
        events: the table of events.
        time: the column of times.
        rules: how times are written.
    """
    wanted = WantedColumn("event_ts", "timestamp", time, required=True)
    paths = sorted(events.staged.folder.glob("*.parquet"))
    columns = [_read_times(path, time) for path in paths]
    days = [_days_of(read_column(column, wanted, rules).values) for column in columns]
    now = _number(dt.datetime.now(dt.UTC).date())
    future = sum(int(np.count_nonzero(each.days[each.read] > now)) for each in days)
    mostly_future = 2 * future > sum(len(column) for column in columns)
    bad: list[BadRow] = []
    for path, column, each in zip(paths, columns, days, strict=True):
        outside = each.read & ((each.days < _number(FIRST_DAY)) | (each.days > _number(LAST_DAY)))
        ahead = each.read & ~outside & (each.days > now) & (not mostly_future)
        frame = pq.read_table(path)
        for mask, why in (
            (~each.read, "can't be read"),
            (outside, f"is not from {FIRST_DAY} to {LAST_DAY}"),
            (ahead, "is in the future"),
        ):
            for row in np.flatnonzero(mask).tolist():
                file, line = frame.column(FILE)[row].as_py(), frame.column(LINE)[row].as_py()
                bad.append(BadRow(file, line, f"the time {column[row].as_py()!r} {why}"))
        kept = pa.array(each.days.astype(np.int32), pa.int32(), mask=~each.read | outside | ahead)
        pq.write_table(frame.append_column(DAY_COLUMN, kept.cast(pa.date32())), path)
    return bad


class _Days(NamedTuple):
    """The days of a file's rows since 1970, and which of its times can be read."""

    days: NDArray[np.int64]
    read: NDArray[np.bool_]


def _read_times(path: Path, time: str) -> pa.Array:
    """Return the column of times of a staged file; a file of JSON lines may lack it."""
    if time not in pq.read_schema(path).names:
        return pa.nulls(pq.read_metadata(path).num_rows, pa.string())
    return pq.read_table(path, columns=[time]).column(time).combine_chunks()


def _days_of(times: pa.Array) -> _Days:
    micros = times.cast(pa.int64())
    return _Days(micros.fill_null(0).to_numpy() // DAY, micros.is_valid().to_numpy(zero_copy_only=False))


def _number(day: dt.date) -> int:
    return (day - EPOCH).days


def count_days(con: duckdb.DuckDBPyConnection, events: Looked) -> dict[str, int]:
    """Return the rows of each day that has any, ascending."""
    rows = con.execute(
        f"SELECT {DAY_COLUMN}, count(*) FROM {events.view} WHERE {DAY_COLUMN} IS NOT NULL "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {str(day): int(count) for day, count in rows}


def write_events(con: duckdb.DuckDBPyConnection, events: Looked, raw: Path, days: dict[str, int]) -> None:
    """Write the drops of events.

    Args:
        con: the connection with the tables.
        events: the table of events, with the day of each row.
        raw: the folder of the drops.
        days: the rows of each day.

    Raises:
        DataError: the rows that were written are not those that were read.
    """
    target = raw / "events"
    target.mkdir(parents=True)
    con.execute("SET threads = 1")  # the same rows make the same files
    con.execute(
        f"COPY (SELECT {_columns(events, {})}, CAST({DAY_COLUMN} AS VARCHAR) AS ds FROM {events.view} "
        f"WHERE {DAY_COLUMN} IS NOT NULL) TO '{_literal(target)}' ({COPY_OPTIONS}, PARTITION_BY (ds))"
    )
    con.execute("RESET threads")
    row = con.execute(f"SELECT count(*) FROM read_parquet('{_literal(target)}/*/*.parquet')").fetchone()
    if row is None or row[0] != sum(days.values()):
        raise DataError(
            f"{target} has {row[0] if row else 0:,} rows where {sum(days.values()):,} were read; the "
            "disk may be full: remove this folder and run the command again"
        )


def write_entity(con: duckdb.DuckDBPyConnection, entity: Entity, events: Looked, raw: Path, day: str) -> None:
    """Write the drop of items or users into the folder of the first day of events.

    Args:
        con: the connection with the tables.
        entity: where the rows come from.
        events: the table of events.
        raw: the folder of the drops.
        day: the first day.
    """
    if entity.table is None and not entity.columns:
        return
    folder = raw / entity.source / f"ds={day}"
    folder.mkdir(parents=True)
    if entity.table is not None:
        # Of several rows of one id, the last one counts: two that contradict each other would be refused.
        key = text_of(entity.key)
        last = f"row_number() OVER (PARTITION BY {key} ORDER BY {FILE} DESC, {LINE} DESC) = 1"
        asked = f"SELECT {_columns(entity.table, _separators(entity))} FROM {entity.table.view} "
        asked += f"WHERE {key} IS NOT NULL QUALIFY {last} ORDER BY {FILE}, {LINE}"
    else:
        asked = _derived(entity, events)
    con.execute("SET threads = 1")
    con.execute(f"COPY ({asked}) TO '{_literal(folder / 'part.parquet')}' ({COPY_OPTIONS})")
    con.execute("RESET threads")


def _derived(entity: Entity, events: Looked) -> str:
    """Return a query for a row of each id, with the most frequent value of each feature."""
    key = text_of(entity.key)
    joins, columns = [], []
    for number, feature in enumerate(entity.columns):
        value = plain_value(events.column(feature.source))
        joins.append(
            f"LEFT JOIN (SELECT k, max(struct_pack(n := n, v := v)).v AS v FROM (SELECT {key} AS k, "
            f"{value} AS v, count(*) AS n FROM {events.view} GROUP BY 1, 2) WHERE v IS NOT NULL GROUP BY k) "
            f"f{number} ON f{number}.k = ids.k"
        )
        columns.append(f", {_split(f'f{number}.v', feature.separator)} AS {quoted(feature.source)}")
    return (
        f"SELECT ids.k AS {quoted(entity.key)} {''.join(columns)} FROM (SELECT DISTINCT {key} AS k "
        f"FROM {events.view} WHERE {key} IS NOT NULL) ids {' '.join(joins)} ORDER BY 1"
    )


def _separators(entity: Entity) -> dict[str, str]:
    """Return what parts the values of texts that are lists, by column."""
    return {feature.source: feature.separator for feature in entity.columns if feature.separator}


def _split(value: str, separator: str) -> str:
    """Return an expression for a text as the list of its values; with no separator, the text."""
    if not separator:
        return value
    parts = f"list_transform(string_split({value}, '{separator}'), lambda v: trim(v))"
    return f"list_filter({parts}, lambda v: v <> '')"


def _columns(table: Looked, separators: Mapping[str, str]) -> str:
    return ", ".join(
        f"{_split(plain_value(column), separators.get(column.name, ''))} AS {quoted(column.name)}"
        for column in table.columns
        if column.name != DAY_COLUMN
    )


def _literal(path: Path) -> str:
    return str(path).replace("'", "''")


def write_bad_rows(rows: list[BadRow], path: Path) -> None:
    """Write the rows that could not be read as CSV: file, line and problem."""
    if not rows:
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(BadRow._fields)
        writer.writerows(sorted(rows))


def find_folder_zone(events: Looked, time: str, rules: ValueRules) -> str:
    """Return the zone whose midnights cut the day folders, judged by the instants of their events.

    Args:
        events: the table of events, whose files lie in folders `ds=YYYY-MM-DD`.
        time: the column of times, which are instants.
        rules: how times are written.
    """
    wanted, ages = WantedColumn("event_ts", "timestamp", time), []
    for path in sorted(events.staged.folder.glob("*.parquet")):
        frame = pq.read_table(path, columns=[time, FILE])
        micros = read_column(frame.column(time).combine_chunks(), wanted, rules).values.cast(pa.int64())
        for micro, file in zip(micros.to_pylist(), frame.column(FILE).to_pylist(), strict=True):
            if micro is not None:
                ages.append((micro - _midnight(file)) / 3_600_000_000)
    if not ages:
        return "UTC"
    ages.sort()
    hours = -int(ages[len(ages) // 100] // 1)  # hours by which the folder's zone is ahead of UTC
    late = ages[-1 - len(ages) // 100] > 24 - hours + 1
    if not -12 <= hours <= 14 or late or hours == 0:
        return "UTC"
    return f"Etc/GMT{-hours:+d}"


def _midnight(file: str) -> int:
    day = next(part for part in Path(file).parts if part.startswith("ds="))
    return _number(dt.date.fromisoformat(day[3:])) * DAY


def time_rules(form: str, zone: str, nulls: frozenset[str]) -> ValueRules:
    """Return how times are written.

    Args:
        form: the format, as `ingest.timestamp.format`.
        zone: the zone of times without an offset.
        nulls: text that means null.
    """
    return ValueRules(nulls, TimeRule(form, zone))
