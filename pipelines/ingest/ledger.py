"""Record which drops have been loaded; a day remains loaded when its folder is removed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from pipelines.schemas import DROP_DS
from pipelines.store.frames import local_rows
from pipelines.store.manifests import IngestManifest
from pipelines.store.runs import find_manifests
from pipelines.store.tables import Warehouse

TABLE = "loaded_drops"


def loaded_days(warehouse: Warehouse, source: str) -> set[str]:
    """Return the days of a source whose drops have been loaded."""
    return {str(row[DROP_DS]) for row in warehouse.read_cached(TABLE) if row["source"] == source} | (
        _days_of_manifests(warehouse) if source == "events" else set()
    )


def _days_of_manifests(warehouse: Warehouse) -> set[str]:
    """Find the days that were loaded by earlier versions, which had no ledger."""
    found: set[str] = set()
    for done in find_manifests(warehouse, IngestManifest):
        if done.manifest.events is None:
            continue
        first, last = map(dt.date.fromisoformat, done.manifest.events.days)
        found |= {str(first + dt.timedelta(days=i)) for i in range((last - first).days + 1)}
    return found


def find_empty_days(warehouse: Warehouse, source: str) -> set[str]:
    """Find the days that were loaded as days without rows because they had no file yet."""
    rows = [row for row in warehouse.read_cached(TABLE) if row["source"] == source]
    filled = {str(row[DROP_DS]) for row in rows if row["had_files"]}
    return {str(row[DROP_DS]) for row in rows} - filled


def note_loaded(warehouse: Warehouse, source: str, days: Iterable[str], with_files: Iterable[str]) -> None:
    """Add days to the ledger; a day without files is added again once it has some.

    Args:
        warehouse: where the ledger is.
        source: `events`, `items` or `users`.
        days: the days that count as loaded.
        with_files: those of the days that have files.
    """
    filled, mine = set(with_files), [row for row in warehouse.read_cached(TABLE) if row["source"] == source]
    known = {(str(row[DROP_DS]), bool(row["had_files"])) for row in mine}
    known |= {(day, False) for day, had_files in known if had_files}
    if new := sorted({(day, day in filled) for day in days} - known):
        rows = [
            {"source": source, DROP_DS: dt.date.fromisoformat(day), "had_files": had_files}
            for day, had_files in new
        ]
        warehouse.append(TABLE, local_rows(warehouse.spark, rows, warehouse.schema(TABLE)))
