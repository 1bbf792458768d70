"""Find which users' histories changed since an earlier build, from counts and hashes of histories.

A history is the triple `(events, history_xor, history_sum)` over the hashes of its events. Events that the
log gained and lost bring a stored triple up to date, so the log of past nights is not read again. Delta's
change feed names these events. No timestamp decides: a late, corrected or deleted event is a change of the
table like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.schemas import (
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
from pipelines.store.manifests import StatesManifest
from pipelines.store.row_digests import row_code
from pipelines.store.runs import find_manifests, first_readable
from pipelines.store.tables import Warehouse

STORED = ("user_link_states", "user_memory")
HISTORY = ("events", "history_xor", "history_sum")
EVENT = (*EVENT_KEY, LABEL)
SIGN = "sign"  # 1: the log gained the event; -1: the log lost it
READ_ALL = "every history is read"


class EarlierBuild(NamedTuple):
    """An earlier build whose rows can be brought up to date."""

    ds: str
    versions: dict[str, int]  # of the tables that it read and wrote
    patched: int  # rows changed in place since both tables were last rewritten


class HistoryDelta(NamedTuple):
    """How the log changed since the build that wrote the stored rows.

    `changes` are signed events (see `read_changes`). `counted` are the persisted counts of these changes by
    user (see `count_histories`). Both are None when every history has to be read. `reason` says why, or since
    which night changes are read.
    """

    changes: DataFrame | None
    counted: DataFrame | None
    versions: dict[str, int]
    patched: int
    reason: str

    @classmethod
    def none(cls, reason: str) -> HistoryDelta:
        """Return a delta after which every history is read, for this reason."""
        return cls(None, None, {}, 0, f"{READ_ALL}: {reason}")

    def release(self) -> None:
        """Free what is persisted."""
        if self.counted is not None:
            self.counted.unpersist()


def describe_build(warehouse: Warehouse, bundle: Bundle, versions: Mapping[str, int]) -> dict[str, Any]:
    """Collect the fields of a build's manifest that decide whether a later build can start from it.

    Args:
        warehouse: holds the tables.
        bundle: the bundle that the build uses.
        versions: the Delta versions of the tables that it reads and writes.
    """
    tables = ("events", *STORED)
    return {
        "model_version": bundle.version,
        "buckets": warehouse.settings.night.buckets,
        "code": row_code(),
        "tables": {name: warehouse.fingerprint(name, versions[name]) for name in tables},
        "versions": dict(versions),
    }


def find_delta(warehouse: Warehouse, night: str, events: int, bundle: Bundle) -> HistoryDelta:
    """Find the changes that bring the stored rows up to date, if there are rows to start from.

    Args:
        warehouse: holds the tables.
        night: the date of the night.
        events: the Delta version of the log that the night reads.
        bundle: the bundle whose rows are wanted.
    """
    build = find_earlier_build(warehouse, night, bundle, events)
    if isinstance(build, str):
        return HistoryDelta.none(build)
    changes = read_changes(warehouse, night, events, build)
    if changes is None:
        return HistoryDelta.none(f"Delta no longer knows what changed in events since night {build.ds}")
    counted = count_histories(changes, bundle).persist()
    reason = f"what changed since the build of night {build.ds} is read"
    return HistoryDelta(changes, counted, build.versions, build.patched, reason)


def find_earlier_build(warehouse: Warehouse, night: str, bundle: Bundle, events: int) -> EarlierBuild | str:
    """Find the build that wrote the stored rows of this model, or say why its rows can't be used.

    Args:
        warehouse: holds the tables.
        night: the date of the night; rows of a later night can't be used.
        bundle: the bundle whose rows are wanted.
        events: the Delta version of the log that the night reads.
    """
    done = [
        each
        for each in find_manifests(warehouse, StatesManifest)
        if each.manifest.model_version == bundle.version and each.manifest.patched is not None
    ]
    if not done:
        return "no earlier build of this model"
    newest = max(each.manifest.versions["user_link_states"] for each in done)
    if newest < first_readable(warehouse, "user_link_states"):
        return "a person was forgotten since the last build"
    past = [
        each for each in done if each.manifest.versions["user_link_states"] == newest and each.ds <= night
    ]
    if not past:
        return "the stored states are of a later night"
    ds, manifest = max(((each.ds, each.manifest) for each in past), key=lambda found: found[0])
    now = describe_build(warehouse, bundle, manifest.versions)
    if changed := [name for name, value in now.items() if getattr(manifest, name) != value]:
        return f"{', '.join(changed)} changed since the build of night {ds}"
    if (was := manifest.versions["events"]) > events:
        return f"night {ds} read events {was}, and this night is pinned to {events}"
    if lost := [name for name in STORED if not _is_readable(warehouse, name, manifest.versions[name])]:
        return f"files of {', '.join(lost)} are gone that night {ds} had written"
    return EarlierBuild(ds, manifest.versions, manifest.patched or 0)


def _is_readable(warehouse: Warehouse, name: str, version: int) -> bool:
    """Whether the rows of a version can still be read.

    They can't if a build that never finished has replaced some of them, and upkeep has then removed the
    files that no newer version uses.
    """
    if version == warehouse.newest(name):
        return True
    try:
        # Delta would answer a maximum from its log, without opening a file.
        warehouse.read(name, version).agg(F.bit_xor(CHECKSUM)).collect()
    except (PySparkException, Py4JJavaError):
        return False
    return True


def read_histories(
    warehouse: Warehouse, night: str, events: int, bundle: Bundle, users: DataFrame | None = None
) -> DataFrame:
    """Read the complete log before the night and count the histories of all users, or of some.

    Args:
        warehouse: holds the log.
        night: the date of the night.
        events: the Delta version of the log.
        bundle: decides whether labels are a part of a history.
        users: the users whose histories are wanted; None for all users.

    Returns:
        The columns that `count_histories` returns.
    """
    log = read_events(warehouse, night, events)
    log = log if users is None else log.join(users.select(USER_ID), USER_ID, "left_semi")
    return count_histories(log.withColumn(SIGN, F.lit(1)), bundle)


def count_histories(changes: DataFrame, bundle: Bundle) -> DataFrame:
    """Count signed events by user.

    Returns:
        `user_id`, the columns `HISTORY`, and `lost`, the number of events that the log lost.
    """
    # Both digests are independent of the order of events. The sum is kept too, because two equal hashes
    # cancel each other in an exclusive or.
    key = F.xxhash64(*HISTORY_ORDER, *([LABEL] if bundle.config.labelled else []))
    return changes.groupBy(USER_ID).agg(
        F.sum(SIGN).alias("events"),
        F.bit_xor(key).alias("history_xor"),
        F.sum(F.shiftright(key, 32) * F.col(SIGN)).alias("history_sum"),
        F.sum((F.col(SIGN) < 0).cast("int")).alias("lost"),
    )


def read_changes(warehouse: Warehouse, night: str, events: int, build: EarlierBuild) -> DataFrame | None:
    """Read what the log has gained and lost since an earlier build.

    Args:
        warehouse: holds the log.
        night: the date of the night.
        events: the Delta version of the log that the night reads.
        build: the earlier build.

    Returns:
        Columns `EVENT` and `SIGN`; None when Delta no longer has the changes.
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
        # A row that a later drop supersedes is lost, and is gained again if that drop is corrected.
        feed = with_new_columns(reader.load(warehouse.path("events"))).where(F.col(SUPERSEDED_BY).isNull())
        feed = feed.where(F.col(DS) < F.lit(build.ds).cast("date"))
        # A row that was rewritten unchanged, or for another drop, was lost and gained: it adds up to 0.
        # Each repeat is its own row.
        changed = feed.groupBy(*EVENT, EVENT_ID, REPEAT).agg(F.sum(F.when(came, 1).otherwise(-1)).alias(SIGN))
        late = changed.where(F.col(SIGN) != 0).drop(EVENT_ID, REPEAT)
        # The feed is read here, where a file that a vacuum removed can still be handled. Most nights have
        # no late events.
        some = late.take(1)
    except (PySparkException, Py4JJavaError):
        return None
    return fresh.unionByName(late) if some else fresh


def add_counts(stored: Column, change: Column, name: str) -> Column:
    """Apply a change to one of the columns `HISTORY`; a null counts as zero.

    Args:
        stored: the value before the change.
        change: the value of the changes alone.
        name: the name of the column: hashes are combined by exclusive or, the other values are added.
    """
    old, new = F.coalesce(stored, F.lit(0)), F.coalesce(change, F.lit(0))
    return (old.bitwiseXOR(new) if name == "history_xor" else old + new).alias(name)
