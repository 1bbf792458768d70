"""Histories as counts and hashes: whose changed since an earlier build, told from Delta's change feed.

A history is `(events, history_xor, history_sum)` over the hashes of its events. Events that come and go
bring a stored triple to tonight's, so the log of past nights is not read again; no timestamp is
believed: a late, corrected or deleted event is a change of the table like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.store.schemas import (
    CHECKSUM,
    DS,
    EVENT_ID,
    EVENT_KEY,
    HISTORY_ORDER,
    LABEL,
    REPEAT,
    SUPERSEDED_BY,
    USER_ID,
)
from pipelines.store.event_log import read_events, with_new_columns
from pipelines.store.row_digests import row_code
from pipelines.store.runs import Manifest, find_manifests, first_readable
from pipelines.store.tables import Warehouse

STORED = ("user_link_states", "user_memory")
HISTORY = ("events", "history_xor", "history_sum")
EVENT = (*EVENT_KEY, LABEL)
SIGN = "sign"  # 1: the log gained the event, -1: it lost it


class EarlierBuild(NamedTuple):
    """An earlier build that states can be advanced from: what it read and wrote; `patched`: see `HistoryDelta`."""

    ds: str
    versions: dict[str, int]
    patched: int


def describe_build(warehouse: Warehouse, bundle: Bundle, versions: Mapping[str, int]) -> Manifest:
    """What a build's manifest says so that a later one can start from it."""
    tables = ("events", *STORED)
    return {
        "model_version": bundle.version,
        "buckets": warehouse.settings.night.buckets,
        "code": row_code(),
        "tables": {name: warehouse.fingerprint(name, versions[name]) for name in tables},
        "versions": dict(versions),
    }


def find_earlier_build(warehouse: Warehouse, night: str, bundle: Bundle, events: int) -> tuple[EarlierBuild | None, str]:
    """The build that wrote the stored rows of this model, or None; and why."""
    done = [
        (each.manifest["versions"]["user_link_states"], each.ds, each.manifest)
        for each in find_manifests(warehouse, "build_link_states")
        if each.manifest["model_version"] == bundle.version and "patched" in each.manifest
    ]
    if not done:
        return None, "every history is read: no earlier build of this model"
    newest = max(version for version, *_ in done)
    if newest < first_readable(warehouse, "user_link_states"):
        return None, "every history is read: a person was forgotten since the last build"
    past = [(ds, manifest) for version, ds, manifest in done if version == newest and ds <= night]
    if not past:
        return None, "every history is read: the stored states are of a later night"
    ds, manifest = max(past, key=lambda found: found[0])
    now = describe_build(warehouse, bundle, manifest["versions"])
    if changed := [name for name, value in now.items() if manifest[name] != value]:
        return None, f"every history is read: {', '.join(changed)} changed since the build of night {ds}"
    if (was := manifest["versions"]["events"]) > events:
        return None, f"every history is read: night {ds} read events {was}, tonight is pinned to {events}"
    if lost := [name for name in STORED if not _readable(warehouse, name, manifest["versions"][name])]:
        return None, f"every history is read: files of {', '.join(lost)} are gone that night {ds} had written"
    return EarlierBuild(
        ds, manifest["versions"], manifest["patched"]
    ), f"what changed since the build of night {ds} is read"


def _readable(warehouse: Warehouse, name: str, version: int) -> bool:
    """Whether the rows of a version are still there: not always, once a build that never finished has
    replaced some of them and upkeep has removed what no newer version holds."""
    if version == warehouse.newest(name):
        return True
    try:
        warehouse.read(name, version).agg(
            F.bit_xor(CHECKSUM)
        ).collect()  # Delta answers a maximum from its log
    except (PySparkException, Py4JJavaError):
        return False
    return True


def read_histories(
    warehouse: Warehouse, night: str, events: int, bundle: Bundle, of: DataFrame | None = None
) -> DataFrame:
    """What `count_histories` says of everybody (or of these users) before the night: reads the whole log."""
    log = read_events(warehouse, night, events)
    log = log if of is None else log.join(of.select(USER_ID), USER_ID, "left_semi")
    return count_histories(log.withColumn(SIGN, F.lit(1)), bundle)


def count_histories(changes: DataFrame, bundle: Bundle) -> DataFrame:
    """`user_id`, `HISTORY` of signed events, and how many were `lost`."""
    # Of all events in any order; the sum too, as equal hashes would cancel each other in the other.
    key = F.xxhash64(*HISTORY_ORDER, *([LABEL] if bundle.config.labelled else []))
    return changes.groupBy(USER_ID).agg(
        F.sum(SIGN).alias("events"),
        F.bit_xor(key).alias("history_xor"),
        F.sum(F.shiftright(key, 32) * F.col(SIGN)).alias("history_sum"),
        F.sum((F.col(SIGN) < 0).cast("int")).alias("lost"),
    )


def read_changes(warehouse: Warehouse, night: str, events: int, build: EarlierBuild) -> DataFrame | None:
    """Columns `EVENT`, signed, of what the log has gained and lost since the build.

    None: Delta no longer knows.
    """
    fresh = read_events(warehouse, night, events).where(F.col(DS) >= F.lit(build.ds).cast("date"))
    fresh = fresh.select(*EVENT, F.lit(1).alias(SIGN))
    was = build.versions["events"]
    if was == events:
        return fresh
    reader = warehouse.spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", was + 1).option("endingVersion", events)
    came = F.col("_change_type").isin("insert", "update_postimage")
    try:
        # A row that a later drop supersedes has gone, and comes back where that drop is corrected.
        feed = with_new_columns(reader.load(warehouse.path("events"))).where(F.col(SUPERSEDED_BY).isNull())
        feed = feed.where(F.col(DS) < F.lit(build.ds).cast("date"))
        # A row that was rewritten as it was, or for another drop, went and came. Each repeat is its own row.
        changed = feed.groupBy(*EVENT, EVENT_ID, REPEAT).agg(F.sum(F.when(came, 1).otherwise(-1)).alias(SIGN))
        late = changed.where(F.col(SIGN) != 0).drop(EVENT_ID, REPEAT)
        # Here, where a file that a vacuum removed can still be answered; most nights have none.
        some = late.take(1)
    except (PySparkException, Py4JJavaError):
        return None
    return fresh.unionByName(late) if some else fresh


def add_counts(side: Column, by: Column, name: str) -> Column:
    """One of `HISTORY` after changes; both may be null, for nothing."""
    old, new = F.coalesce(side, F.lit(0)), F.coalesce(by, F.lit(0))
    return (old.bitwiseXOR(new) if name == "history_xor" else old + new).alias(name)
