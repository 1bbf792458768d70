"""Export published lists to the places that the settings name; see `exporter.py`."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from pyspark.sql import functions as F

from pipelines.export.exporter import Exporter, ExportFailed, Lists, Newer, Report, night_of
from pipelines.export.parquet_exporter import ParquetExporter
from pipelines.publish.night_record import refuse_disproved
from pipelines.schemas import DS, RUN_ID
from pipelines.settings.export import RedisExport
from pipelines.store.manifests import EXPORTED_NOWHERE, ExportManifest
from pipelines.store.runs import record
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable

log = logging.getLogger(__name__)


def _open_redis(_: Warehouse, section: RedisExport) -> Exporter:
    from pipelines.export.redis_exporter import RedisExporter  # nights without Redis need not have its client

    return RedisExporter(section)


# The keys are the names of the sections in `export` of the settings. A new exporter needs its own file, its
# section and a line here.
EXPORTERS: Final[dict[str, Callable[[Warehouse, Any], Exporter]]] = {
    "redis": _open_redis,
    "parquet": ParquetExporter,
}


def find_exporters(warehouse: Warehouse) -> list[Exporter]:
    """Make an exporter for each place that the settings name."""
    settings = warehouse.settings.export
    sections = {name: getattr(settings, name) for name in EXPORTERS}
    return [EXPORTERS[name](warehouse, section) for name, section in sections.items() if section]


def export_recommendations(warehouse: Warehouse, night: str, *, newer: Newer = "refuse") -> ExportManifest:
    """Export the published lists of a night to all places that the settings name.

    Args:
        warehouse: the warehouse that contains the lists.
        night: the date of the night (YYYY-MM-DD).
        newer: what to do at a place that serves a later night: fail, replace it by this night, or keep it.

    Returns:
        The manifest, with one section for each place.

    Raises:
        MissingTable: the night is not published.
        ListsDisproved: a full comparison has disproved its lists.
        ExportFailed: a newer night is served, or an exporter failed; see `Exporter`.
    """
    exporters = find_exporters(warehouse)
    if not exporters:
        return ExportManifest(exported=EXPORTED_NOWHERE)
    version = warehouse.version("recommendations")
    rows = warehouse.read("recommendations", version).where(F.col(DS) == F.lit(night).cast("date"))
    runs = [row[RUN_ID] for row in rows.select(RUN_ID).distinct().collect()]
    if not runs:
        for exporter in exporters:  # the night may have been exported before it was taken back
            exporter.withdraw(night)
        raise MissingTable(
            f"night {night} is not published; nothing to export, and no Parquet of it is left. Where Redis "
            "still serves it, export the night before with --older"
        )
    (run_id,) = runs
    refuse_disproved(warehouse, night, run_id)
    lists = Lists(rows, night, run_id, lambda served: was_published(warehouse, version, night_of(served)))
    reports = {exporter.name: _export(exporter, lists, newer) for exporter in exporters}
    versions = {"recommendations": version}
    manifest = ExportManifest.model_validate({"run_id": run_id, "versions": versions, **reports})
    record(warehouse, run_id, night, manifest)
    return manifest


def _export(exporter: Exporter, lists: Lists, newer: Newer) -> Report:
    """Export lists to one place."""
    served = None if newer == "replace" else exporter.find_newer(lists)
    if served and newer == "keep":
        log.warning(
            "%s goes on serving %s, a newer night than %s; nothing was exported there",
            exporter.name, served, lists.run_id,
        )  # fmt: skip
        return {"lists": 0, "served": served}
    if served:
        raise ExportFailed(
            f"export.{exporter.name} serves {served}, a newer night than {lists.run_id}; with --older it is "
            "put back"
        )
    loaded = exporter.load(lists)
    exporter.verify(lists)
    return {**loaded, **exporter.flip(lists)}


def was_published(warehouse: Warehouse, version: int, night: str) -> bool:
    """Return whether a version of `recommendations` holds a night, and was not published too early.

    A night that was published more than a day before its own date has a wrong date. It would count as newer
    than every correct night, perhaps for years, so it does not count as published. One day is allowed, as the
    days of drops may be those of a time zone ahead of UTC.

    Args:
        warehouse: the warehouse that contains the table.
        version: the Delta version of the table.
        night: the date of the night; a text that is not a date was not published.
    """
    try:
        day = dt.date.fromisoformat(night)
    except ValueError:
        return False
    rows = warehouse.read("recommendations", version).where(F.col(DS) == F.lit(day))
    if not rows.select(DS).head(1):
        return False
    when = F.col("timestamp").cast("date")
    commits = warehouse.delta("recommendations").history().select(when, "userMetadata").collect()
    of_the_night = [on for on, tag in commits if tag and _tagged_night(tag) == night]
    # Delta's history forgets old commits: a forgotten commit is older than every commit that is listed.
    published = max(of_the_night) if of_the_night else min(on for on, _ in commits)
    return bool(day <= published + dt.timedelta(days=1))


def _tagged_night(tag: str) -> str:
    """Return the night that the metadata of a commit is about, or no text; see `operate/rollback.py`."""
    try:
        manifest = json.loads(tag)
    except ValueError:
        return ""
    if not isinstance(manifest, dict):
        return ""
    return str(manifest.get("night") or night_of(manifest.get("run_id") or ""))
