"""Keep the warehouse small: drop the rows and files that no night needs any more, and merge small files.

The log and the tables of bookkeeping get small files every night, so these tables are compacted. The staged
rows of a night are kept for `upkeep.keep_nights` nights, and those of pinned runs longer. A vacuum removes
the files that belong to no version of the last `upkeep.keep_days` days and to no pinned version.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.operate.pins import FILES, LOG, Pin, files_of, find_pins, list_files, set_properties
from pipelines.schemas import DS, RUN_ID, TABLES
from pipelines.score.base_night import STAGED
from pipelines.store.apart import drop_old
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.manifests import PublishManifest, ScoreManifest, TidyManifest
from pipelines.store.predicates import table_name
from pipelines.store.runs import find_manifests, record
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import writing

ENTITIES = ("items", "users")
COMPACTED = ("events", "events_quarantine", "candidate_history", "item_bias", "runs", "leases")
HOURS, DELTAS_DAYS, DELTAS_LOG_DAYS = 24, 7, 30
LISTING = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
INVENTORY = "lime_files"  # the view of the files that a vacuum may remove
INVENTORY_SCHEMA = "path string, length long, isDir boolean, modificationTime long"


class NightUnknown(LimeError):
    """Upkeep was requested for a night that is long after the newest night of this warehouse."""


def tidy_tables(warehouse: Warehouse, night: str) -> TidyManifest:
    """Compact tables, drop old staged rows, and vacuum.

    Nights may run at the same time; at worst, one of their jobs must be run again.

    Args:
        warehouse: the warehouse that contains the tables.
        night: the date (YYYY-MM-DD) from which `keep_nights` are counted back to the oldest night whose
            staged rows are kept; `runs` records the upkeep under this date.

    Raises:
        NightUnknown: the staged rows of the newest night would be dropped.
        PinLost: a pinned version can't be read.
        WriteConflict: a night changed the same rows meanwhile.
    """
    limits = warehouse.settings.upkeep
    first = str(dt.date.fromisoformat(night) - dt.timedelta(days=limits.keep_nights))
    check_night(warehouse, night, first)
    pins = find_pins(warehouse)
    tables = [name for name in (*TABLES, *ENTITIES) if warehouse.exists(name)]
    compacted = {name: files for name in COMPACTED if name in tables and (files := compact(warehouse, name))}
    # This is recorded before the rows are dropped, as no night may start from rows that are partly dropped.
    manifest = TidyManifest(staged_from=first, pinned=[pin.run_id for pin in pins])
    record(warehouse, f"{night}.tidy", night, manifest)
    dropped = {name: drop_staged(warehouse, name, first, pins) for name in STAGED if name in tables}
    apart = drop_old(warehouse, first, limits.keep_days)
    keep = f"interval {limits.keep_days} days"
    # By default, Delta might forget sooner which files it removed, and what was published.
    wanted = {
        FILES: keep if limits.keep_days != DELTAS_DAYS else None,
        LOG: keep if limits.keep_days > DELTAS_LOG_DAYS else None,
    }
    for name in set(tables) - {name for pin in pins for name in pin.versions}:
        set_properties(warehouse, name, wanted)
    removed = {name: vacuum(warehouse, name, limits.keep_days * HOURS, pins) for name in tables}
    manifest = TidyManifest(
        staged_from=first,
        pinned=manifest.pinned,
        files_compacted=compacted,
        staged_runs_dropped=dropped,
        evaluations_dropped=apart,
        files_removed={name: count for name, count in removed.items() if count},
    )
    record(warehouse, f"{night}.tidy", night, manifest)
    return manifest


def check_night(warehouse: Warehouse, night: str, first: str) -> None:
    """Check that upkeep would keep the staged rows of the newest night, which a wrong date might not do.

    Args:
        warehouse: the warehouse that contains the nights.
        night: the date (YYYY-MM-DD) that upkeep is requested for.
        first: the date of the oldest night whose staged rows it would keep.

    Raises:
        NightUnknown: the newest night, which the message names, is before `first`.
    """
    scored = [each.ds for each in find_manifests(warehouse, ScoreManifest)]
    newest = max([*scored, *(str(row[DS]) for row in warehouse.read_cached("leases"))], default=None)
    if newest and newest < first:
        raise NightUnknown(
            f"upkeep as of night {night} would drop what every night has staged: the newest night that this "
            f"warehouse knows is {newest}, more than upkeep.keep_nights "
            f"({warehouse.settings.upkeep.keep_nights}) before it. Nothing was changed; give --ds {newest}, "
            "or run the nights in between first"
        )


def compact(warehouse: Warehouse, name: str) -> int:
    """Merge the small files of a table into fewer ones; return how many files were merged.

    The rows of the table and its change feed do not change.
    """
    with writing(name):
        done = warehouse.delta(name).optimize().executeCompaction()
    return int(done.select("metrics.numFilesRemoved").collect()[0][0])


def drop_staged(warehouse: Warehouse, name: str, first: str, pins: Iterable[Pin]) -> int:
    """Drop the rows that runs of old nights staged.

    The rows of pinned runs are kept, and those of the newest run of a night that has not published, as it may
    still be working.

    Args:
        warehouse: the warehouse that contains the table.
        name: the table of staged rows.
        first: the date (YYYY-MM-DD) of the oldest night whose rows are kept.
        pins: the pins whose rows are kept.

    Returns:
        The number of runs whose rows were dropped.

    Raises:
        WriteConflict: a night changed the same rows meanwhile.
    """
    found = [row[0] for row in warehouse.read(name).select(RUN_ID).distinct().collect()]
    needed = {pin.run_id for pin in pins} | _unfinished(warehouse)
    old = [run_id for run_id in found if run_id.split(".")[0] < first and run_id not in needed]
    if old:
        with writing(name):
            warehouse.delta(name).delete(F.col(RUN_ID).isin(old))
    return len(old)


def vacuum(warehouse: Warehouse, name: str, hours: int, pins: Iterable[Pin] = ()) -> int:
    """Remove the files of a table that only old versions hold and that no pin needs.

    Args:
        warehouse: the warehouse that contains the table.
        name: the table.
        hours: the age from which on a version is old; 0 keeps only the newest version and the pinned ones.
        pins: the pins whose files are kept.

    Returns:
        The number of removed files.

    Raises:
        PinLost: a pinned version can't be read.
    """
    spark, table = warehouse.spark, table_name(warehouse.path(name))
    versions = sorted({pin.versions[name] for pin in pins if pin.versions.get(name, -1) >= 0})
    if versions:
        _inventory(warehouse, name, versions).createOrReplaceTempView(INVENTORY)
    using = f"USING INVENTORY (SELECT * FROM {INVENTORY})" if versions else ""
    # A vacuum lists files in 10,000 tasks by default, which takes minutes for each table on a few cores.
    conf = {CHECK: "false", LISTING: str(4 * spark.sparkContext.defaultParallelism)}
    before = {key: spark.conf.get(key, None) for key in conf}
    files = _count_files(warehouse, name)
    for key, value in conf.items():
        spark.conf.set(key, value)
    try:
        spark.sql(f"VACUUM {table} {using} RETAIN {hours} HOURS")
    finally:
        for key, old in before.items():
            spark.conf.unset(key) if old is None else spark.conf.set(key, old)
    return files - _count_files(warehouse, name)


def _unfinished(warehouse: Warehouse) -> set[str]:
    """Return the ids of the runs that own their night and have not published."""
    newest: dict[str, int] = {}
    for row in warehouse.read_cached("leases"):
        newest[str(row[DS])] = max(row["epoch"], newest.get(str(row[DS]), 0))
    done = {each.run_id for each in find_manifests(warehouse, PublishManifest)}
    return {f"{night}.{epoch}" for night, epoch in newest.items()} - done


def _inventory(warehouse: Warehouse, name: str, versions: Iterable[int]) -> DataFrame:
    """List the files of a table that a vacuum may remove: all except those of these versions.

    No version lists the files of its deletion vectors, so none of these files is removed while a version is
    pinned; they are small.
    """
    kept = sorted({file for version in versions for file in files_of(warehouse, name, version)})
    # Files are compared by their names, which are unique, as Spark spells the same URI in several ways.
    names = local_rows(warehouse.spark, [{"file": file} for file in kept], parse_schema("file string"))
    listed = list_files(warehouse, name).withColumn("file", F.substring_index("path", "/", -1))
    mine = listed.where(~F.col("file").endswith(".bin")).join(names, "file", "left_anti")
    changed = F.unix_millis("modificationTime").alias("modificationTime")
    files = mine.select("path", "length", F.lit(False).alias("isDir"), changed)
    # Delta requires that every column is nullable.
    nothing = local_rows(warehouse.spark, [], parse_schema(INVENTORY_SCHEMA))
    return nothing.unionByName(files)


def _count_files(warehouse: Warehouse, name: str) -> int:
    return list_files(warehouse, name).select("path").count()
