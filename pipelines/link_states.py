"""Link states and repeat memory of every user, each history read once.

Users are `users` as the night sees them and everybody seen in events before it. A user
without events gets the empty state: a row like any other. Only users whose history or
features changed are read; the rows of the others stand, whatever night computed them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.bundles import ship_bundle, shipped_folder
from pipelines.catalogue import read_entity
from pipelines.columns import (
    BUCKET,
    CHECKSUM,
    EVENT_TS,
    EVENT_TYPE,
    FINGERPRINT,
    HISTORY_ORDER,
    ITEM_ID,
    LABEL,
    MODEL_VERSION,
    SESSION_ID,
    USER_ID,
)  # fmt: skip
from pipelines.events import read_events
from pipelines.leases import Run
from pipelines.reuse import compute_checksum, compute_fingerprint, sound_fingerprints
from pipelines.runs import Manifest, find_manifest, once
from pipelines.session import arrow_batches_of
from pipelines.tables import SQL_TYPES, Warehouse, count_cases
from pipelines.udfs.reduce_states import FEATURES, SCHEMA, reduce_states

EVENTS_PER_BATCH = 8192  # an event is small; the session's default is for users with their states
BROADCAST_USERS = 1_000_000  # ids that every executor can hold

PAYLOAD: Final = {
    "user_link_states": (BUCKET, USER_ID, "event_count", "last_event_ts", "slots", "weights", "state"),
    "user_memory": (BUCKET, USER_ID, "items", "counts", "first_ts", "last_ts", "features"),
}  # by table: what its checksum covers

Versions = Mapping[str, int]


def build_link_states(warehouse: Warehouse, run: Run, model: str) -> Manifest:
    """Bring `user_link_states` and `user_memory` to the night; the manifest names their versions.

    It counts the users whose rows were recomputed, kept, and removed (the night does not know them).
    """

    def work() -> Manifest:
        bundle = ship_bundle(warehouse, model)
        bank = find_manifest(warehouse, run.run_id, "build_candidate_bank")
        events = bank["versions"]["events"] if bank else warehouse.version("events")
        read = {"events": events, "users": warehouse.newest("users")}
        base = stored = {name: warehouse.newest(name) for name in PAYLOAD}
        users = compare_users(warehouse, run.ds, {**read, **stored}, bundle).persist()
        counts = _count(users)
        if counts["recomputed"] or counts["removed"] or min(stored.values()) < 0:
            changed = users.where(~F.col("stands") & F.col(FINGERPRINT).isNotNull())
            log = read_events(warehouse, run.ds, events)
            if counts["kept"]:
                ids = changed.select(USER_ID)
                # Spark does not know how few they are, and would sort the whole log to join it.
                few = counts["recomputed"] <= BROADCAST_USERS
                log = log.join(F.broadcast(ids) if few else ids, USER_ID, "left_semi")
            rows = compute_states(warehouse, run.ds, events, changed, log, bundle)
            stored = write_states(warehouse, rows, users.where("stands"), stored, bundle.version)
        users.unpersist()
        return {
            "model": model,
            "model_version": bundle.version,
            "versions": {**read, **stored},
            "base": base,
            **counts,
        }

    return once(warehouse, run, "build_link_states", work)


def _count(users: DataFrame) -> dict[str, int]:
    """Users, their events, and what becomes of their rows."""
    tonight = F.col(FINGERPRINT).isNotNull()
    cases = {
        "users": tonight,
        "cold_users": tonight & (F.col("events") == 0),
        "recomputed": tonight & ~F.col("stands"),
        "kept": F.col("stands"),
        "removed": ~tonight,
    }
    return count_cases(users, {"events": F.col("events"), **cases})


def compare_users(warehouse: Warehouse, night: str, versions: Versions, bundle: Bundle) -> DataFrame:
    """Every user of the night or of the stored rows: `user_id, user_values, events, fingerprint, stands`.

    Without a fingerprint the night does not know the user. `stands`: both of the user's rows were
    computed from the same history and features, and hold what was computed.
    """
    users = read_inputs(warehouse, night, versions, bundle)
    stands = F.lit(True)
    for name, payload in PAYLOAD.items():
        rows = _stored(warehouse, name, versions[name], bundle.version)
        if name == "user_link_states":
            rows = rows.where(F.length("state") > 0)  # empty: it could not be computed
        old = sound_fingerprints(rows, USER_ID, payload, name)
        users = users.join(old, USER_ID, "full_outer")
        stands = stands & F.coalesce(F.col(name) == F.col(FINGERPRINT), F.lit(False))
    return users.select(USER_ID, FEATURES, "events", FINGERPRINT, stands.alias("stands"))


def read_inputs(warehouse: Warehouse, night: str, versions: Versions, bundle: Bundle) -> DataFrame:
    """What each user's rows depend on, beside the bundle: features, and the history as a count and a hash."""
    users = read_entity(warehouse, "users", night, versions["users"])
    values = [name for name in bundle.user_encoders if name in users.columns]
    known = users.select(USER_ID, (F.to_json(F.struct(*values)) if values else F.lit("")).alias(FEATURES))
    # Of all events in any order; the sum too, as equal hashes would cancel each other in the other.
    key = F.xxhash64(*HISTORY_ORDER, *([LABEL] if bundle.config.labelled else []))
    history = F.array(F.bit_xor(key), F.sum(F.shiftright(key, 32))).alias("history")
    seen = read_events(warehouse, night, versions["events"]).groupBy(USER_ID)
    joined = known.join(seen.agg(F.count("*").alias("events"), history), USER_ID, "full_outer")
    events = F.coalesce("events", F.lit(0)).alias("events")
    # A row of another split would belong to no work unit.
    buckets = F.lit(warehouse.settings.night.buckets).alias("buckets")
    fingerprint = compute_fingerprint(buckets, events, F.col("history"), F.col(FEATURES))
    return joined.select(USER_ID, FEATURES, events, fingerprint.alias(FINGERPRINT))


def write_states(
    warehouse: Warehouse, rows: DataFrame, kept: DataFrame, stored: Versions, model_version: str
) -> dict[str, int]:
    """Replace the model's slice of both tables by new rows and the kept ones; returns their versions."""
    written = {}
    rows = rows.persist()
    for name, payload in PAYLOAD.items():
        names = warehouse.schema(name).names
        new = rows.withColumn(CHECKSUM, compute_checksum(payload)).select(names)
        old = _stored(warehouse, name, stored[name], model_version)
        standing = old.join(kept.select(USER_ID), USER_ID, "left_semi").select(names)
        with arrow_batches_of(warehouse.spark, EVENTS_PER_BATCH):
            where = f"{MODEL_VERSION} = '{model_version}'"
            written[name] = warehouse.replace(name, new.unionByName(standing), where)
    rows.unpersist()
    return written


def _stored(warehouse: Warehouse, name: str, version: int, model_version: str) -> DataFrame:
    return warehouse.read(name, version).where(F.col(MODEL_VERSION) == model_version)


def compute_states(
    warehouse: Warehouse, night: str, events_version: int, users: DataFrame, log: DataFrame, bundle: Bundle
) -> DataFrame:
    """One row per user by `mapInArrow` over headers and events in history order.

    Args:
        users: as of `compare_users`.
        log: their events, of `events` at `events_version`.
    """
    buckets = warehouse.settings.night.buckets
    # By the bucket itself: its hash would put several into one task and none into others.
    stacked = stack_histories(users, log).withColumn(BUCKET, bucket_of(buckets))
    ordered = stacked.repartitionById(buckets, BUCKET)
    # The user first, not the bucket: Spark compares the first key alone before it looks at the others.
    ordered = ordered.sortWithinPartitions(
        USER_ID, F.col(EVENT_TS).asc_nulls_first(), *HISTORY_ORDER[1:]
    ).select(BUCKET, USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, LABEL, FEATURES, FINGERPRINT)

    strict = warehouse.settings.night.strict

    def reduce(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        yield from reduce_states(batches, shipped_folder(bundle.version), strict=strict)

    ids = warehouse.settings.ids
    schema = SCHEMA.format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])
    return ordered.mapInArrow(reduce, schema).withColumns(
        {
            "as_of": F.lit(night).cast("date"),
            "events_version": F.lit(events_version),
            MODEL_VERSION: F.lit(bundle.version),
        }
    )


def stack_histories(users: DataFrame, log: DataFrame) -> DataFrame:
    """A header row per user (no event; features and fingerprint), and a row per event."""
    headers = users.select(USER_ID, FEATURES, FINGERPRINT)
    # Empty, not null: Spark sizes its Arrow batch after every row, and Arrow's vectors then walk back
    # over all nulls since the last value, so a batch would cost the square of its rows.
    no_features, no_print = F.lit("").alias(FEATURES), F.lit("").alias(FINGERPRINT)
    events = log.select(USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, SESSION_ID, LABEL, no_features, no_print)
    return headers.unionByName(events, allowMissingColumns=True)


def bucket_of(buckets: int) -> Column:
    """The work unit of a user: fixed by id and B alone."""
    return F.pmod(F.xxhash64(F.col(USER_ID).cast("string")), F.lit(buckets)).cast("int")
