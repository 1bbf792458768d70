"""Read one day of drops by the rules of ingest, without Spark and without a lease, and list every fault."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ingest.source_columns import entity_columns, event_columns
from pipelines.onboard.conditions import duck_condition, find_unknown, with_numbers
from pipelines.onboard.dialect import Dialect
from pipelines.onboard.facts import text_of
from pipelines.onboard.staging import FILE, LINE, BadRow, stage
from pipelines.onboard.tables import Table, day_files
from pipelines.settings.base import SettingsError
from pipelines.settings.settings import Settings, load_settings
from pipelines.udfs.times import find_zone
from pipelines.udfs.value_columns import combine, read_column
from pipelines.udfs.values import WantedColumn

Source = Literal["events", "items", "users"]
MALFORMED = "malformed_row"


SOURCES: tuple[Source, ...] = ("events", "items", "users")


class DryRun(NamedTuple):
    """What reading one day gave."""

    source: str
    day: str
    delivered: int
    filtered: int
    bad: int
    faults: list[str]
    reasons: dict[str, int]


def try_drops(config: Path) -> tuple[list[DryRun], list[str]]:
    """Read the newest day with rows of each source; return what came of it and all faults."""
    try:
        settings = load_settings(config)
    except SettingsError as error:
        return [], str(error).splitlines()
    tries = []
    for source in SOURCES:
        days = sorted((path.name[3:] for path in (Path(settings.drops) / source).glob("ds=*")), reverse=True)
        filled = next((day for day in days if day_files(Path(settings.drops), source, day)), None)
        if filled:
            tries.append(read_day(settings, source, filled))
    return tries, [fault for each in tries for fault in each.faults]


def settings_dialect(settings: Settings) -> Dialect:
    """Return the dialect that the settings describe."""
    ingest = settings.ingest
    header = tuple(ingest.csv.header) if isinstance(ingest.csv.header, list) else None
    csv = ingest.csv
    return Dialect(ingest.format, ingest.encoding, csv.delimiter, csv.quote, csv.escape, header)


def read_day(settings: Settings, source: Source, day: str) -> DryRun:
    """Read one day of a source.

    Args:
        settings: the settings to try.
        source: `events`, `items` or `users`.
        day: the day as `YYYY-MM-DD`.
    """
    files = day_files(Path(settings.drops), source, day)
    columns = event_columns(settings) if source == "events" else entity_columns(settings, source)
    where = getattr(settings.ingest, source).where
    with tempfile.TemporaryDirectory() as scratch:
        staged = stage(Table(source, files, settings_dialect(settings)), Path(scratch) / "day", flat=False)
        parts = [pq.read_table(path) for path in sorted(staged.folder.glob("*.parquet"))]
    frame = pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
    faults = [
        _missing(source, day, c, frame) for c in columns if c.required and c.source not in frame.column_names
    ]
    if where and frame.num_rows and (unknown := find_unknown(where, frame.column_names)):
        faults.append(
            f"{source} of {day}: the filter {where!r} names the column {unknown!r}, which is missing"
        )
    if faults or not frame.num_rows:
        return DryRun(source, day, staged.rows, 0, len(staged.bad), faults, {})
    kept = _kept(frame, where)
    reasons, examples = _read_rows(frame, columns, settings, (source, day))
    found = Counter(reason for reason, keep in zip(reasons, kept, strict=True) if reason and keep)
    found.update({MALFORMED: len(staged.bad)} if staged.bad else {})
    examples |= {MALFORMED: _place(staged.bad[0])} if staged.bad else {}
    bad, counted = sum(found.values()), sum(kept) + len(staged.bad)
    limit = settings.ingest.max_rejected_share
    if counted and bad > limit * counted:
        said = "; ".join(f"{n:,} {reason} ({examples[reason]})" for reason, n in found.most_common())
        faults.append(
            f"{source} of {day}: {bad:,} of {counted:,} rows are bad, more than max_rejected_share "
            f"({limit:g}): {said}"
        )
    return DryRun(source, day, staged.rows, len(kept) - sum(kept), bad, faults, dict(found))


def _missing(source: str, day: str, column: WantedColumn, frame: pa.Table) -> str:
    names = [name for name in frame.column_names if name not in (FILE, LINE)]
    what = f"the column {column.source!r} (our {column.name}) is missing"
    return f"{source} of {day}: {what}; the files have {names}"


def _kept(frame: pa.Table, where: str | None) -> list[bool]:
    """Return whether each row meets the filter; a filter that DuckDB can't read is left to ingest."""
    if not where:
        return [True] * frame.num_rows
    con = duckdb.connect()
    con.register("rows_of_day", frame)
    texts = [field.name for field in frame.schema if pa.types.is_string(field.type)]
    for typed in (False, True):
        numbers = [name for name in texts if _are_numbers(con, name)] if typed else []
        table = with_numbers("rows_of_day", numbers)
        kept = f"SELECT coalesce(({duck_condition(where)}), false) FROM ({table})"
        try:
            return [bool(row[0]) for row in con.execute(kept).fetchall()]
        except duckdb.Error:
            continue
    return [True] * frame.num_rows


def _are_numbers(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether all values of a column of texts are numbers."""
    text = text_of(name)
    row = con.execute(f"SELECT count(*) FROM rows_of_day WHERE {text} IS NOT NULL "
                      f"AND TRY_CAST({text} AS DOUBLE) IS NULL").fetchone()  # fmt: skip
    return row is not None and row[0] == 0


def _read_rows(
    frame: pa.Table, columns: tuple[WantedColumn, ...], settings: Settings, place: tuple[str, str]
) -> tuple[list[str | None], dict[str, str]]:
    """Return the reason why each row is bad, and an example of each reason."""
    nothing = pa.nulls(frame.num_rows, pa.string())
    sources = [
        frame.column(c.source).combine_chunks() if c.source in frame.column_names else nothing
        for c in columns
    ]
    reads = [read_column(s, c, settings.ingest.rules) for s, c in zip(sources, columns, strict=True)]
    rows = combine(reads, columns, sources)
    reasons: list[str | None] = rows.field("_reason").to_pylist()
    if place[0] == "events":
        _judge_days(reasons, rows.field("event_ts").cast(pa.int64()).to_pylist(), settings, place[1])
    examples: dict[str, str] = {}
    values = rows.field("_value").to_pylist()
    for row, reason in enumerate(reasons):
        if reason and reason not in examples:
            bad = BadRow(frame.column(FILE)[row].as_py(), frame.column(LINE)[row].as_py(), repr(values[row]))
            examples[reason] = _place(bad)
    return reasons, examples


def _judge_days(reasons: list[str | None], micros: list[int | None], settings: Settings, day: str) -> None:
    """Add the reasons of events whose day does not fit the folder's."""
    zone, folder = find_zone(settings.ingest.day_zone), dt.date.fromisoformat(day)
    for row, micro in enumerate(micros):
        if micro is None or reasons[row]:
            continue
        local = dt.datetime.fromtimestamp(micro / 1_000_000, zone).date()
        if local > folder:
            reasons[row] = "future_timestamp"
        elif local < folder - dt.timedelta(days=settings.ingest.late_days):
            reasons[row] = "too_late"


def _place(bad: BadRow) -> str:
    return f"{Path(bad.file).name} line {bad.line:,}: {bad.problem}"
