"""Build the link states and the repeat memory of every user; each history is read once.

A user without events gets the empty state, which is a row like any other. Only users whose history or
features changed are computed; the rows of the others are reused, whichever night computed them. LIME-MHA
merges new events into stored rows, however late they come. After a lost event or a changed feature, the
complete history is read again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.build.compare_users import UserComparison, UserCounts, count_users, empty_value
from pipelines.build.history_changes import EVENT, HISTORY, SIGN, describe_build, find_delta
from pipelines.build.write_states import StateWrite, write_states
from pipelines.models.bundles import ship_bundle, shipped_folder
from pipelines.models.pinned_inputs import find_pinned_inputs, warn_of_newer_inputs
from pipelines.schemas import (
    BUCKET,
    EVENT_TS,
    EVENT_TYPE,
    FINGERPRINT,
    HISTORY_ORDER,
    ITEM_ID,
    LABEL,
    MODEL_VERSION,
    REDUCED,
    SQL_TYPES,
    USER_ID,
    ddl_of,
)
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.manifests import StatesManifest
from pipelines.store.runs import run_once
from pipelines.store.tables import Warehouse
from pipelines.udfs.reduce_states import FEATURES, HEADER, PRIOR, reduce_states

log = logging.getLogger(__name__)

STORED: Final = ("user_link_states", "user_memory")
BROADCAST_USERS = 1_000_000  # ids that every executor can hold


def build_link_states(warehouse: Warehouse, run: Run, model: str) -> StatesManifest:
    """Update `user_link_states` and `user_memory` for the night; the manifest names their versions.

    The manifest also counts the users whose rows were recomputed from their complete history, merged with
    new events, kept, or removed because the night does not know the user.

    Args:
        warehouse: holds the tables.
        run: the run of the night.
        model: name of the model.

    Raises:
        BundleError: the model has no champion, or a state can't be computed.
        WriteConflict: another writer changed the same rows.
    """

    def work() -> StatesManifest:
        pinned = find_pinned_inputs(warehouse, run, model)
        bundle = ship_bundle(warehouse, model, pinned.model_version)
        read = {"events": pinned.events, "users": warehouse.newest("users")}
        delta = find_delta(warehouse, run.ds, pinned.events, bundle)
        base = {name: delta.versions.get(name, warehouse.newest(name)) for name in STORED}
        comparison = UserComparison(warehouse, run.ds, bundle, {**read, **base}, delta)
        users = comparison.compare().persist()
        kept, counts = [users], count_users(users)
        if delta.changes is not None and counts.damaged:
            users = comparison.compare(users.where(~F.col("sound")).select(USER_ID)).persist()
            kept, counts = [*kept, users], count_users(users)
        log.info("%s: %d users are read, %d merged", delta.reason, counts.recomputed, counts.merged)
        written = StateWrite(base, delta.patched)
        if counts.recomputed or counts.merged or counts.removed or min(base.values()) < 0:
            rows = compute_states(comparison, users, _changed_log(comparison, users, counts))
            written = write_states(comparison, rows, users, counts)
        for frame in kept:
            frame.unpersist()
        delta.release()
        return StatesManifest(
            model=model,
            **describe_build(warehouse, bundle, {**read, **written.versions}),
            base=base,
            plan_reason=delta.reason,
            patched=written.patched,
            **counts._asdict(),
        )

    done = run_once(warehouse, run, StatesManifest, work)
    warn_of_newer_inputs(warehouse, run, done)
    return done


def _changed_log(comparison: UserComparison, users: DataFrame, counts: UserCounts) -> DataFrame:
    """Select the events to read: complete histories, and new events that are merged into stored rows.

    Args:
        comparison: gives the log and its changes.
        users: the result of `UserComparison.compare`.
        counts: the result of `count_users`.
    """
    due = users.where(~F.col("is_current") & F.col(FINGERPRINT).isNotNull())
    events = read_events(comparison.warehouse, comparison.night, comparison.versions["events"])
    log = events.select(*EVENT)
    if not counts.recomputed:
        log = log.limit(0)
    elif counts.kept or counts.merged:
        log = _events_of(log, due.where(~F.col("merges")), counts.recomputed)
    changes = comparison.delta.changes
    if changes is not None and counts.merged:
        log = log.unionByName(_events_of(changes, due.where("merges"), counts.merged).drop(SIGN))
    return log


def _events_of(log: DataFrame, users: DataFrame, count: int) -> DataFrame:
    """Select the events of some users; a broadcast keeps Spark from sorting the complete log for a few."""
    ids = users.select(USER_ID)
    return log.join(F.broadcast(ids) if count <= BROADCAST_USERS else ids, USER_ID, "left_semi")


def compute_states(comparison: UserComparison, users: DataFrame, log: DataFrame) -> DataFrame:
    """Compute one row for each user whose stored rows are not current.

    Args:
        comparison: gives the night, the bundle and the versions.
        users: the result of `UserComparison.compare`.
        log: the events to read, with the columns `EVENT`.

    Returns:
        The columns of both tables of states, without the checksums.
    """
    warehouse, bundle = comparison.warehouse, comparison.bundle
    due = users.where(~F.col("is_current") & F.col(FINGERPRINT).isNotNull())
    buckets = warehouse.settings.night.buckets
    stacked = stack_histories(due, log).withColumn(BUCKET, bucket_of(buckets))
    # The partition is the bucket itself: by its hash, one task could get several buckets and another none.
    ordered = stacked.repartitionById(buckets, BUCKET)
    # The user comes before the bucket in the order: Spark compares the first key before it looks at the
    # others.
    ordered = ordered.sortWithinPartitions(
        USER_ID, F.col(EVENT_TS).asc_nulls_first(), *HISTORY_ORDER[1:]
    ).select(BUCKET, USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, LABEL, *headers_of(due))
    version, strict = bundle.version, warehouse.settings.night.strict

    def reduce(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from reduce_states(batches, shipped_folder(version), strict=strict)

    return ordered.mapInArrow(reduce, _reduced_schema(warehouse)).withColumns(
        {
            "as_of": F.lit(comparison.night).cast("date"),
            "events_version": F.lit(comparison.versions["events"]),
            MODEL_VERSION: F.lit(version),
        }
    )


def _reduced_schema(warehouse: Warehouse) -> str:
    ids = warehouse.settings.ids
    schema = ddl_of(*STORED, columns=REDUCED)
    return schema.format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])


def stack_histories(users: DataFrame, log: DataFrame) -> DataFrame:
    """Union a header row for each user (without an event; see `headers_of`) with a row for each event."""
    headers = users.select(USER_ID, *headers_of(users))
    # Values are empty, not null: Spark measures its Arrow batch after every row, and Arrow's vectors then
    # scan all nulls since the last value, so the time of a batch would grow with the square of its rows.
    nothing = {FEATURES: F.lit(""), FINGERPRINT: F.lit("")}
    nothing |= {name: F.lit(0).cast("long") for name in HISTORY[1:]}
    events = log.withColumns(nothing)
    events = events.withColumns({name: empty_value(kind) for name, kind in users.dtypes if name in PRIOR})
    return headers.unionByName(events, allowMissingColumns=True)


def headers_of(users: DataFrame) -> list[str]:
    """List the columns of a header: `HEADER`, and `PRIOR` where new events are merged into stored rows."""
    return [*HEADER, *(name for name in PRIOR if name in users.columns)]


def bucket_of(buckets: int) -> Column:
    """Compute the bucket of a user, which depends only on the id and the number of buckets."""
    return F.pmod(F.xxhash64(F.col(USER_ID).cast("string")), F.lit(buckets)).cast("int")
