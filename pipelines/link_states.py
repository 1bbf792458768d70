"""Link states and repeat memory of every user, each history read once.

Users are `users` as the night sees them and everybody seen in events before it. A user
without events gets the empty state: a row like any other. Only users whose history or
features changed are read; the rows of the others stand, whatever night computed them. LIME-MHA merges
new events into stored rows, however late they come; a lost event or another feature needs the whole history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

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
    USER_ID,
)  # fmt: skip
from pipelines.events import read_events
from pipelines.histories import (
    EVENT,
    HISTORY,
    SIGN,
    advance,
    count_histories,
    describe_build,
    find_build,
    read_changes,
    read_histories,
)
from pipelines.leases import Run
from pipelines.reuse import compute_checksum, compute_fingerprint, sound_fingerprints
from pipelines.runs import Manifest, find_manifest, once
from pipelines.session import arrow_batches_of
from pipelines.tables import SQL_TYPES, Warehouse, count_cases
from pipelines.udfs.reduce_states import FEATURES, HEADER, PRIOR, SCHEMA, reduce_states

EVENTS_PER_BATCH = 8192  # an event is small; the session's default is for users with their states
BROADCAST_USERS = 1_000_000  # ids that every executor can hold

PAYLOAD: Final = {
    "user_link_states": (
        BUCKET,
        USER_ID,
        "event_count",
        "history_xor",
        "history_sum",
        "last_event_ts",
        "slots",
        "weights",
        "state",
    ),
    "user_memory": (BUCKET, USER_ID, "items", "counts", "first_ts", "last_ts", "decays", "features"),
}  # by table: what its checksum covers

Versions = Mapping[str, int]


def build_link_states(warehouse: Warehouse, run: Run, model: str) -> Manifest:
    """Bring `user_link_states` and `user_memory` to the night; the manifest names their versions.

    It counts the users whose rows were recomputed from their whole history, merged with new events,
    kept, and removed (the night does not know them).
    """

    def work() -> Manifest:
        bundle = ship_bundle(warehouse, model)
        bank = find_manifest(warehouse, run.run_id, "build_candidate_bank")
        events = bank["versions"]["events"] if bank else warehouse.version("events")
        read = {"events": events, "users": warehouse.newest("users")}
        since = find_changes(warehouse, run.ds, events, bundle)
        base = stored = {name: since.versions.get(name, warehouse.newest(name)) for name in PAYLOAD}
        users = compare_users(warehouse, run.ds, {**read, **stored}, bundle, since.changes).persist()
        counts = _count(users)
        if counts["recomputed"] or counts["merged"] or counts["removed"] or min(stored.values()) < 0:
            changed = users.where(~F.col("stands") & F.col(FINGERPRINT).isNotNull())
            log = read_events(warehouse, run.ds, events).select(*EVENT)
            if not counts["recomputed"]:
                log = log.limit(0)
            elif counts["kept"] or counts["merged"]:
                log = _of(log, changed.where(~F.col("merges")), counts["recomputed"])
            if since.changes is not None and counts["merged"]:
                merged = changed.where("merges")
                log = log.unionByName(_of(since.changes, merged, counts["merged"]).drop(SIGN))
                changed = add_stored(warehouse, changed, stored, bundle.version)
            rows = compute_states(warehouse, run.ds, events, changed, log, bundle)
            stored = write_states(warehouse, rows, users.where("stands"), stored, bundle.version)
        users.unpersist()
        return {
            "model": model,
            **describe_build(warehouse, bundle, {**read, **stored}),
            "base": base,
            "plan": since.why,
            **counts,
        }

    return once(warehouse, run, "build_link_states", work)


def _of(log: DataFrame, users: DataFrame, count: int) -> DataFrame:
    """Events of these users; Spark does not know how few they are, and would sort the whole log."""
    ids = users.select(USER_ID)
    return log.join(F.broadcast(ids) if count <= BROADCAST_USERS else ids, USER_ID, "left_semi")


class Since(NamedTuple):
    """What states are advanced by: signed events since the build that wrote the rows at `versions`.

    `changes` None: every history is read.
    """

    changes: DataFrame | None
    versions: dict[str, int]
    why: str


def find_changes(warehouse: Warehouse, night: str, events: int, bundle: Bundle) -> Since:
    """The changes to advance the stored rows by, if they can be."""
    build, why = find_build(warehouse, night, bundle, events)
    if build is None:
        return Since(None, {}, why)
    changes = read_changes(warehouse, night, events, build)
    if changes is None:
        return Since(
            None,
            {},
            f"every history is read: Delta no longer knows what changed in events since night {build.ds}",
        )
    return Since(changes, build.versions, why)


def _count(users: DataFrame) -> dict[str, int]:
    """Users, their events, and what becomes of their rows."""
    tonight = F.col(FINGERPRINT).isNotNull()
    cases = {
        "users": tonight,
        "cold_users": tonight & (F.col("events") == 0),
        "recomputed": tonight & ~F.col("stands") & ~F.col("merges"),
        "merged": tonight & F.col("merges"),
        "kept": F.col("stands"),
        "removed": ~tonight,
    }
    return count_cases(users, {"events": F.when(tonight, F.col("events")), **cases})


def compare_users(
    warehouse: Warehouse, night: str, versions: Versions, bundle: Bundle, changes: DataFrame | None
) -> DataFrame:
    """Every user of the night or of the stored rows, with what the rows depend on and what becomes of them.

    Args:
        changes: see `Since`.

    Returns:
        `user_id, user_values, events, history_xor, history_sum, fingerprint, stands, merges`. Without a
        fingerprint the night does not know the user. `stands`: both of the user's rows were computed from
        the same history and features, and hold what was computed. `merges`: from the same features and a
        history that has only gained events since.
    """
    stored = _read_stored(warehouse, versions, bundle.version)
    users = read_entity(warehouse, "users", night, versions["users"])
    values = [name for name in bundle.user_encoders if name in users.columns]
    known = users.select(USER_ID, (F.to_json(F.struct(*values)) if values else F.lit("")).alias(FEATURES))
    before = [F.coalesce(f"was_{name}", F.lit(0)) for name in HISTORY]
    if changes is None:
        past = read_histories(warehouse, night, versions["events"], bundle)
        now = [F.coalesce(name, F.lit(0)).alias(name) for name in HISTORY]
    else:
        past = count_histories(changes, bundle)
        now = [advance(F.col(f"was_{name}"), F.col(name), name) for name in HISTORY]
        # A damaged row does not tell what was read: its user's history is read again.
        damaged = stored.where(~F.col("sound")).select(USER_ID)
        if damaged.take(1):  # or the whole log would be read for nobody
            again = read_histories(warehouse, night, versions["events"], bundle, damaged)
            past = past.join(damaged, USER_ID, "left_anti").unionByName(again)
    joined = known.withColumn("listed", F.lit(True)).join(past, USER_ID, "full_outer")
    joined = joined.join(stored, USER_ID, "full_outer")
    # A row of another split would belong to no work unit.
    buckets = F.lit(warehouse.settings.night.buckets)

    def fingerprint(history: list[Column]) -> Column:
        named = [column.alias(name) for column, name in zip(history, HISTORY, strict=True)]
        return compute_fingerprint(buckets.alias("buckets"), *named, F.col(FEATURES))

    tonight = F.coalesce("listed", F.lit(False)) | (now[0] > 0)
    print_now, print_before = fingerprint(now), fingerprint(before)
    whole = F.coalesce("sound", F.lit(False))
    stands = tonight & whole & F.coalesce(F.col("was") == print_now, F.lit(False))
    gained = F.lit(changes is not None and bundle.config.variant == "lime-mha") & (
        F.coalesce("lost", F.lit(0)) == 0
    )
    merges = tonight & whole & gained & ~stands & F.coalesce(F.col("was") == print_before, F.lit(False))
    return joined.select(
        USER_ID, FEATURES, *now, F.when(tonight, print_now).alias(FINGERPRINT),
        stands.alias("stands"), merges.alias("merges"),
    )  # fmt: skip


def _read_stored(warehouse: Warehouse, versions: Versions, model_version: str) -> DataFrame:
    """`user_id, sound, was, was_*` of stored rows: their fingerprint, and what they have read (`HISTORY`).

    `sound`: both rows are there once, hold what was computed, and were computed from the same.
    """
    was = {"event_count": "was_events", **{name: f"was_{name}" for name in HISTORY[1:]}}
    carried: dict[str, dict[str, str]] = {"user_link_states": was, "user_memory": {}}
    sides = []
    for name, payload in PAYLOAD.items():
        rows = _stored(warehouse, name, versions[name], model_version)
        if name == "user_link_states":
            rows = rows.where(F.length("state") > 0)  # empty: it could not be computed
        sides.append(sound_fingerprints(rows, USER_ID, payload, name, carried[name]))
    sound = F.coalesce(F.col("user_link_states") == F.col("user_memory"), F.lit(False)).alias("sound")
    both = sides[0].join(sides[1], USER_ID, "full_outer")
    read = [F.when(sound, F.col(name)).alias(name) for name in was.values()]
    return both.select(USER_ID, sound, F.when(sound, F.col("user_memory")).alias("was"), *read)


def add_stored(warehouse: Warehouse, users: DataFrame, stored: Versions, model_version: str) -> DataFrame:
    """`users` with the columns `PRIOR` of those that merge, empty for the others."""
    sides = [_stored(warehouse, name, stored[name], model_version) for name in PAYLOAD]
    lacking = [name for name in PRIOR if name not in sides[0].columns]
    prior = sides[0].join(sides[1].select(USER_ID, *lacking), USER_ID).select(USER_ID, *PRIOR)
    merged = users.where("merges").join(prior, USER_ID)
    return merged.unionByName(_with_empty(users.where(~F.col("merges")), prior))


def _with_empty(rows: DataFrame, like: DataFrame) -> DataFrame:
    """`rows` with empty columns `PRIOR`; not null, see `stack_histories`."""
    empty = {"bigint": F.lit(0), "timestamp": F.timestamp_micros(F.lit(0)), "binary": F.lit(b"")}
    kinds = dict(like.select(*PRIOR).dtypes)
    columns = {name: empty.get(kind, F.array().cast(kind)).cast(kind) for name, kind in kinds.items()}
    return rows.withColumns(columns)


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
        log: columns `EVENT` of their events, of `events` at `events_version`.
    """
    buckets = warehouse.settings.night.buckets
    # By the bucket itself: its hash would put several into one task and none into others.
    stacked = stack_histories(users, log).withColumn(BUCKET, bucket_of(buckets))
    ordered = stacked.repartitionById(buckets, BUCKET)
    # The user first, not the bucket: Spark compares the first key alone before it looks at the others.
    ordered = ordered.sortWithinPartitions(
        USER_ID, F.col(EVENT_TS).asc_nulls_first(), *HISTORY_ORDER[1:]
    ).select(BUCKET, USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, LABEL, *headers_of(users))

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
    """A header row per user (no event; see `headers_of`), and a row per event."""
    names = headers_of(users)
    headers = users.select(USER_ID, *names)
    # Empty, not null: Spark sizes its Arrow batch after every row, and Arrow's vectors then walk back
    # over all nulls since the last value, so a batch would cost the square of its rows.
    nothing = {FEATURES: F.lit(""), FINGERPRINT: F.lit("")}
    nothing |= {name: F.lit(0).cast("long") for name in HISTORY[1:]}
    events = log.withColumns(nothing)
    if PRIOR[0] in names:
        events = _with_empty(events, users)
    return headers.unionByName(events, allowMissingColumns=True)


def headers_of(users: DataFrame) -> list[str]:
    """Columns of a header: `HEADER`, and `PRIOR` where stored rows are merged into."""
    return [*HEADER, *(name for name in PRIOR if name in users.columns)]


def bucket_of(buckets: int) -> Column:
    """The work unit of a user: fixed by id and B alone."""
    return F.pmod(F.xxhash64(F.col(USER_ID).cast("string")), F.lit(buckets)).cast("int")
