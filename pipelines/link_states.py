"""Link states and repeat memory of every user, each history read once.

Users are `users` as the night sees them and everybody seen in events before it. A user
without events gets the empty state: a row like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.bundles import ship_bundle, shipped_folder
from pipelines.catalogue import read_entity
from pipelines.columns import (
    BUCKET,
    EVENT_TS,
    EVENT_TYPE,
    HISTORY_ORDER,
    ITEM_ID,
    MODEL_VERSION,
    SESSION_ID,
    USER_ID,
)  # fmt: skip
from pipelines.events import read_events
from pipelines.leases import Run
from pipelines.runs import Manifest, find_manifest, once
from pipelines.session import arrow_batches_of
from pipelines.tables import SQL_TYPES, Warehouse
from pipelines.udfs.reduce_states import FEATURES, SCHEMA, reduce_states

EVENTS_PER_BATCH = 8192  # an event is small; the session's default is for users with their states


def build_link_states(warehouse: Warehouse, run: Run, model: str) -> Manifest:
    """Build `user_link_states` and `user_memory` as of the night; the manifest names their versions."""

    def work() -> Manifest:
        bundle = ship_bundle(warehouse, model)
        bank = find_manifest(warehouse, run.run_id, "build_candidate_bank")
        events_version = bank["versions"]["events"] if bank else warehouse.version("events")
        users_version = warehouse.newest("users")
        rows = compute_states(warehouse, run.ds, (events_version, users_version), bundle).persist()
        where = f"{MODEL_VERSION} = '{bundle.version}'"
        with arrow_batches_of(warehouse.spark, EVENTS_PER_BATCH):
            states = warehouse.replace("user_link_states", rows, where)
        memory = warehouse.replace("user_memory", rows, where)
        counts = rows.select(
            F.count("*"), F.sum("event_count"), F.sum((F.col("event_count") == 0).cast("int"))
        )
        users, events, cold = counts.collect()[0]
        rows.unpersist()
        return {
            "model": model,
            "model_version": bundle.version,
            "versions": {
                "events": events_version,
                "users": users_version,
                "user_link_states": states,
                "user_memory": memory,
            },
            "users": users,
            "events": events or 0,
            "cold_users": cold or 0,
        }

    return once(warehouse, run, "build_link_states", work)


def compute_states(warehouse: Warehouse, night: str, versions: tuple[int, int], bundle: Bundle) -> DataFrame:
    """One row per user by `mapInArrow` over headers and events in history order.

    `versions` are those of `events` and `users`.
    """
    buckets = warehouse.settings.night.buckets
    rows = stack_histories(warehouse, night, versions, bundle.config.user_columns)
    ordered = rows.withColumn(BUCKET, bucket_of(buckets)).repartition(buckets, BUCKET)
    # The user first, not the bucket: Spark compares the first key alone before it looks at the others.
    ordered = ordered.sortWithinPartitions(
        USER_ID, F.col(EVENT_TS).asc_nulls_first(), *HISTORY_ORDER[1:]
    ).select(BUCKET, USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, FEATURES)

    def reduce(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        yield from reduce_states(batches, shipped_folder(bundle.version))

    ids = warehouse.settings.ids
    schema = SCHEMA.format(user=SQL_TYPES[ids.user_id], item=SQL_TYPES[ids.item_id])
    return ordered.mapInArrow(reduce, schema).withColumns(
        {
            "as_of": F.lit(night).cast("date"),
            "events_version": F.lit(versions[0]),
            MODEL_VERSION: F.lit(bundle.version),
        }
    )


def stack_histories(
    warehouse: Warehouse, night: str, versions: tuple[int, int], columns: Sequence[str]
) -> DataFrame:
    """A header row per user (no event, values of `columns` as one array), and a row per event."""
    events = read_events(warehouse, night, versions[0])
    users = read_entity(warehouse, "users", night, versions[1])
    values = [F.col(c).cast("string") if c in users.columns else F.lit(None).cast("string") for c in columns]
    known = users.select(USER_ID, F.array(*values).cast("array<string>").alias(FEATURES))
    headers = known.join(events.select(USER_ID).distinct(), USER_ID, "full_outer")
    # Empty, not null: Spark sizes its Arrow batch after every row, and Arrow's list vector then walks
    # back over all nulls since the last list, so a batch would cost the square of its rows.
    events = events.select(
        USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, SESSION_ID, F.array().cast("array<string>").alias(FEATURES)
    )
    return headers.unionByName(events, allowMissingColumns=True)


def bucket_of(buckets: int) -> Column:
    """The work unit of a user: fixed by id and B alone."""
    return F.pmod(F.xxhash64(F.col(USER_ID).cast("string")), F.lit(buckets)).cast("int")
