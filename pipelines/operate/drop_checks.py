"""Check the drops of a settings file without Spark: their days, and the columns of the newest one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pyarrow.parquet as pq

from lime_model.errors import LimeError
from pipelines.ingest.drop_names import local_days
from pipelines.ingest.source_columns import entity_columns, event_columns
from pipelines.onboard.conditions import find_unknown
from pipelines.onboard.dialect import Dialect
from pipelines.onboard.dry_run import settings_dialect
from pipelines.onboard.guesses import some
from pipelines.onboard.oddities import missing_days
from pipelines.onboard.staging import read_records
from pipelines.onboard.tables import day_files
from pipelines.settings.base import local_path
from pipelines.settings.file import suggest
from pipelines.settings.settings import Settings

Source = Literal["events", "items", "users"]
SOURCES: Final[tuple[Source, ...]] = ("events", "items", "users")
ROWS: Final = 1000  # rows of JSON lines that are searched for keys


class Check(NamedTuple):
    """The outcome of one check."""

    name: str
    state: Literal["ok", "warning", "failed", "not checked"]
    found: str
    remedy: str = ""


def check_drops(settings: Settings) -> Iterator[Check]:
    """Check that there are drops of events, and of items and users where the settings describe columns."""
    root = local_path(settings.drops)
    if root is None:
        yield Check("drops", "not checked", f"{settings.drops} is not a folder of this machine")
        return
    described = {"items": settings.ingest.items.columns, "users": settings.ingest.users.columns}
    for source in SOURCES:
        folder = root / source
        days = local_days(folder)
        name, remedy = f"drops of {source}", f"write files into {folder}/ds=YYYY-MM-DD/, or correct drops"
        if days:
            yield _check_days(name, settings, source, days)
            yield from _check_newest(settings, root, source, days)
        elif source == "events":
            yield Check(name, "failed", f"{folder} has no folder of a day", remedy)
        elif described[source]:
            yield Check(name, "warning", f"{folder} has no folder of a day, so all columns are null", remedy)


def _check_days(name: str, settings: Settings, source: Source, days: list[str]) -> Check:
    """Check that no day is missing between the first and the last one."""
    found = f"{len(days):,} days, from {days[0]} to {days[-1]}"
    missing = missing_days(days) if source == "events" else []
    if missing and settings.ingest.missing_drop == "fail":
        remedy = "deliver them (an empty folder is a day without rows), or set ingest.missing_drop: empty"
        return Check(name, "warning", f"{found}; {len(missing):,} are missing: {some(missing)}", remedy)
    return Check(
        name, "ok", found + (f"; {len(missing):,} are missing and count as empty" if missing else "")
    )


def _check_newest(settings: Settings, root: Path, source: Source, days: list[str]) -> Iterator[Check]:
    """Check that the newest day with files has every mapped column."""
    filled = ((day, day_files(root, source, day)) for day in reversed(days))
    day, files = next(((day, files) for day, files in filled if files), ("", []))
    if not files:
        return
    name = f"columns of {source}"
    columns = event_columns(settings) if source == "events" else entity_columns(settings, source)
    try:
        names = read_names(files[0], settings_dialect(settings))
    except (LimeError, OSError) as error:
        yield Check(
            name, "failed", str(error).splitlines()[0], "correct the file, or the dialect under ingest"
        )
        return
    missing = [column for column in columns if column.source not in names]
    optional = {"event_type", "session_id", "label"}  # their defaults name columns that many sources lack
    needed = [c for c in missing if c.required]
    others = [c for c in missing if not c.required and not (c.name in optional and c.source == c.name)]
    where = getattr(settings.ingest, source).where
    if where and (unknown := find_unknown(where, names)):
        found = f"{files[0]} lacks {unknown!r}, which the filter {where!r} names"
        yield Check(
            name, "failed", found, f"correct ingest.{source}.where; {suggest(unknown, names, 'column')}"
        )
        return
    if not needed and not others:
        yield Check(name, "ok", f"the newest drop, {day}, has every mapped column")
        return
    first = (needed or others)[0]
    found = f"{files[0]} lacks {some([repr(column.source) for column in needed + others])}"
    remedy = f"correct the name under ingest.{source}; {suggest(first.source, names, 'column')}"
    yield Check(name, "failed" if needed else "warning", found, remedy)


def read_names(path: Path, dialect: Dialect) -> list[str]:
    """Return the names of the columns of a file.

    Args:
        path: the file.
        dialect: how it is written, by the settings.

    Raises:
        LimeError: the file can't be read.
        OSError: it is not Parquet.
    """
    if dialect.format == "parquet":
        return list(pq.read_schema(path).names)
    if dialect.header:
        return list(dialect.header)
    names: dict[str, None] = {}
    for record in islice(read_records(path, dialect), ROWS if dialect.format == "json" else 1):
        names |= dict.fromkeys(record.values or ())
    return list(names)
