"""Published lists to where they are served from, as the settings say; see `exporter.py`."""

from __future__ import annotations

import datetime as dt
import json
import logging

from pyspark.sql import functions as F

from pipelines.export.exporter import Exporter, ExportFailed, Lists, Newer, night_of
from pipelines.export.parquet_exporter import ParquetExporter
from pipelines.export.redis_exporter import RedisExporter
from pipelines.publish.night_record import refuse_disproved
from pipelines.store.runs import Manifest, record
from pipelines.store.schemas import DS, RUN_ID
from pipelines.store.tables import MissingTable, Warehouse

__all__ = ["ExportFailed", "Newer", "export_recommendations", "find_exporters"]

log = logging.getLogger(__name__)


def find_exporters(warehouse: Warehouse) -> list[Exporter]:
    """The places that the settings name."""
    settings, found = warehouse.settings.export, list[Exporter]()
    if settings.redis:
        found.append(RedisExporter(settings.redis))
    if settings.parquet:
        found.append(ParquetExporter(warehouse, settings.parquet))
    return found


def export_recommendations(warehouse: Warehouse, night: str, *, newer: Newer = "refuse") -> Manifest:
    """Export the published lists of a night to all that the settings name.

    Args:
        newer: where a later night is served: an error, or put this one in its place, or leave it.

    Raises:
        MissingTable: the night is not published.
        ListsDisproved: a full comparison has disproved its lists.
        ExportFailed: a newer night is served; or see `Exporter`.
    """
    exporters = find_exporters(warehouse)
    if not exporters:
        return {"exported": "nowhere: the settings have no export"}
    version = warehouse.version("recommendations")
    rows = warehouse.read("recommendations", version).where(F.col(DS) == F.lit(night).cast("date"))
    runs = [row[0] for row in rows.select(RUN_ID).distinct().collect()]
    if not runs:
        for exporter in exporters:  # of before it was taken back
            exporter.withdraw(night)
        raise MissingTable(
            f"night {night} is not published; nothing to export, and no Parquet of it is left. Where Redis "
            "still serves it, export the night before with --older"
        )
    (run_id,) = runs
    refuse_disproved(warehouse, night, run_id)
    lists = Lists(rows, night, run_id, lambda served: was_published(warehouse, version, night_of(served)))
    report: Manifest = {"run_id": run_id, "versions": {"recommendations": version}}
    for exporter in exporters:
        report[exporter.name] = _export(exporter, lists, newer)
    record(warehouse, run_id, night, "export_recommendations", report)
    return report


def _export(exporter: Exporter, lists: Lists, newer: Newer) -> Manifest:
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
    """Whether `recommendations` holds a night at a version, published when its day had come.

    A night that was published more than a day before its own date is a mistake in the date. It would be newer
    than every right one for years, so it counts as none. (A day, as drops may be cut by a zone ahead of UTC.)
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
    # Delta forgets commits: one that it does not know any more is older than all that it knows.
    published = max(of_the_night) if of_the_night else min(on for on, _ in commits)
    return bool(day <= published + dt.timedelta(days=1))


def _tagged_night(tag: str) -> str:
    """The night that a commit of `recommendations` is about; see `rollback.py`."""
    try:
        manifest = json.loads(tag)
    except ValueError:
        return ""
    if not isinstance(manifest, dict):
        return ""
    return str(manifest.get("night") or night_of(manifest.get("run_id") or ""))
