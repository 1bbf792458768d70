"""Keeping the warehouse small: what no night needs any more is dropped, small files become few.

Tables of bookkeeping and the log gain small files every night and are compacted. Staged rows stand by
until a night is older than `upkeep.keep_nights`; then they go, but those of pinned runs. A vacuum removes
files that no version of the last `upkeep.keep_days` holds, and no pinned one.
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
INVENTORY = "lime_files"  # view of the files that a vacuum may remove
INVENTORY_SCHEMA = "path string, length long, isDir boolean, modificationTime long"


class NightUnknown(LimeError):
    """Upkeep was asked for as of a night that lies far after all that this warehouse has seen."""


def tidy_tables(warehouse: Warehouse, night: str) -> TidyManifest:
    """Compact, drop and vacuum; may run beside nights, whose jobs are at worst tried again.

    Args:
        night: staged rows are kept from `keep_nights` before it on; names the action in `runs`.

    Raises:
        NightUnknown: the newest night's own staged rows would be dropped.
        PinLost: a pinned version is not readable.
        WriteConflict: a night changed the same rows meanwhile.
    """
    limits = warehouse.settings.upkeep
    first = str(dt.date.fromisoformat(night) - dt.timedelta(days=limits.keep_nights))
    check_night(warehouse, night, first)
    pins = find_pins(warehouse)
    tables = [name for name in (*TABLES, *ENTITIES) if warehouse.exists(name)]
    compacted = {name: files for name in COMPACTED if name in tables and (files := compact(warehouse, name))}
    # Recorded before the rows are dropped: no night may start from rows that are half gone.
    manifest = TidyManifest(staged_from=first, pinned=[pin.run_id for pin in pins])
    record(warehouse, f"{night}.tidy", night, manifest)
    dropped = {name: drop_staged(warehouse, name, first, pins) for name in STAGED if name in tables}
    apart = drop_old(warehouse, first, limits.keep_days)
    keep = f"interval {limits.keep_days} days"
    # Or Delta forgets sooner which files it removed, and what was published.
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
    """A date that is wrong by a month or a year would drop what every night has staged, the newest included.

    Args:
        night: that upkeep is asked for.
        first: the oldest night whose staged rows it would keep.

    Raises:
        NightUnknown: naming the newest night.
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
    """Write the small files of a table into few; how many there were. Rows and change feed are as before."""
    with writing(name):
        done = warehouse.delta(name).optimize().executeCompaction()
    return int(done.select("metrics.numFilesRemoved").collect()[0][0])


def drop_staged(warehouse: Warehouse, name: str, first: str, pins: Iterable[Pin]) -> int:
    """Drop what runs of nights before `first` staged; how many runs.

    Not of pinned runs, and of those that may still be at work: the newest run of a night until it has
    published.
    """
    found = [row[0] for row in warehouse.read(name).select(RUN_ID).distinct().collect()]
    needed = {pin.run_id for pin in pins} | _unfinished(warehouse)
    old = [run_id for run_id in found if run_id.split(".")[0] < first and run_id not in needed]
    if old:
        with writing(name):
            warehouse.delta(name).delete(F.col(RUN_ID).isin(old))
    return len(old)


def vacuum(warehouse: Warehouse, name: str, hours: int, pins: Iterable[Pin] = ()) -> int:
    """Remove files of a table that only versions older than `hours` hold and no pin; how many.

    Raises:
        PinLost: a pinned version is not readable.
    """
    spark, table = warehouse.spark, table_name(warehouse.path(name))
    versions = sorted({pin.versions[name] for pin in pins if pin.versions.get(name, -1) >= 0})
    if versions:
        _inventory(warehouse, name, versions).createOrReplaceTempView(INVENTORY)
    using = f"USING INVENTORY (SELECT * FROM {INVENTORY})" if versions else ""
    # A vacuum lists in so many tasks, 10,000 unless told otherwise: minutes a table on few cores.
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
    """Runs that own their night and have not published."""
    newest: dict[str, int] = {}
    for row in warehouse.read_cached("leases"):
        newest[str(row[DS])] = max(row["epoch"], newest.get(str(row[DS]), 0))
    done = {each.run_id for each in find_manifests(warehouse, PublishManifest)}
    return {f"{night}.{epoch}" for night, epoch in newest.items()} - done


def _inventory(warehouse: Warehouse, name: str, versions: Iterable[int]) -> DataFrame:
    """Files of a table that a vacuum may look at: all but those of these versions.

    Deletion vectors are in nobody's list of files; while an old version is pinned they stay, small as they
    are.
    """
    kept = sorted({file for version in versions for file in files_of(warehouse, name, version)})
    # By name, which is unique: Spark writes one and the same URI in several ways.
    names = local_rows(warehouse.spark, [{"file": file} for file in kept], parse_schema("file string"))
    listed = list_files(warehouse, name).withColumn("file", F.substring_index("path", "/", -1))
    mine = listed.where(~F.col("file").endswith(".bin")).join(names, "file", "left_anti")
    changed = F.unix_millis("modificationTime").alias("modificationTime")
    files = mine.select("path", "length", F.lit(False).alias("isDir"), changed)
    # Delta wants every column to be one that may be null.
    nothing = local_rows(warehouse.spark, [], parse_schema(INVENTORY_SCHEMA))
    return nothing.unionByName(files)


def _count_files(warehouse: Warehouse, name: str) -> int:
    return list_files(warehouse, name).select("path").count()
