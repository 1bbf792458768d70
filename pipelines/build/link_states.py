"""Link states and repeat memory of every user, each history read once.

Users are `users` as the night sees them and everybody seen in events before it. A user
without events gets the empty state: a row like any other. Only users whose history or
features changed are read; the rows of the others stand, whatever night computed them. LIME-MHA merges
new events into stored rows, however late they come; a lost event or another feature needs the whole history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.build.history_changes import (
    EVENT,
    HISTORY,
    SIGN,
    add_counts,
    count_histories,
    describe_build,
    find_earlier_build,
    read_changes,
    read_histories,
)
from pipelines.models.bundles import ship_bundle, shipped_folder
from pipelines.models.pinned_inputs import find_pinned_inputs, warn_of_newer_inputs
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.predicates import equals
from pipelines.store.row_digests import compute_checksum, compute_fingerprint, patch_rows, sound_fingerprints
from pipelines.store.runs import Manifest, run_once
from pipelines.store.schemas import (
    BUCKET,
    CHECKSUM,
    EVENT_TS,
    EVENT_TYPE,
    FINGERPRINT,
    HISTORY_ORDER,
    ITEM_ID,
    LABEL,
    MODEL_VERSION,
    SQL_TYPES,
    USER_ID,
)  # fmt: skip
from pipelines.store.session import arrow_batches_of
from pipelines.store.tables import Warehouse, count_cases
from pipelines.udfs.reduce_states import FEATURES, HEADER, PRIOR, SCHEMA, reduce_states

EVENTS_PER_BATCH = 8192  # an event is small; the session's default is for users with their states
LEAST_PATCHED = 10_000  # users: fewer are written whole in less time than two merges take
MOST_PATCHED = 1.0  # rows changed in place, of the users: then the tables are written whole, without the dead
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
        version, events = find_pinned_inputs(warehouse, run, model)
        bundle = ship_bundle(warehouse, model, version)
        read = {"events": events, "users": warehouse.newest("users")}
        since = find_changes(warehouse, run.ds, events, bundle)
        base = stored = {name: since.versions.get(name, warehouse.newest(name)) for name in PAYLOAD}
        patched = since.patched
        users = compare_users(warehouse, run.ds, {**read, **stored}, bundle, since).persist()
        kept, counts = [users], _count(users)
        if since.changes is not None and counts["damaged"]:
            damaged = users.where(~F.col("sound")).select(USER_ID)
            users = compare_users(warehouse, run.ds, {**read, **stored}, bundle, since, damaged).persist()
            kept, counts = [*kept, users], _count(users)
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
            rows = compute_states(warehouse, run.ds, events, changed, log, bundle)
            patched += counts["recomputed"] + counts["merged"] + counts["removed"]
            current = all(warehouse.newest(name) == version for name, version in stored.items())
            worth = counts["users"] >= LEAST_PATCHED and patched < MOST_PATCHED * counts["users"]
            if current and worth and not counts["damaged"]:
                stored = patch_states(warehouse, rows, users, stored, bundle.version)
            else:
                stored, patched = write_states(warehouse, rows, users, stored, bundle.version), 0
        for frame in (*kept, *([since.counted] if since.counted is not None else [])):
            frame.unpersist()
        return {
            "model": model,
            **describe_build(warehouse, bundle, {**read, **stored}),
            "base": base,
            "plan": since.why,
            "patched": patched,
            **counts,
        }

    done = run_once(warehouse, run, "build_link_states", work)
    warn_of_newer_inputs(warehouse, run, "build_link_states", done)
    return done


def _of(log: DataFrame, users: DataFrame, count: int) -> DataFrame:
    """Events of these users; Spark does not know how few they are, and would sort the whole log."""
    ids = users.select(USER_ID)
    return log.join(F.broadcast(ids) if count <= BROADCAST_USERS else ids, USER_ID, "left_semi")


class HistoryDelta(NamedTuple):
    """What states are advanced by: signed events since the build that wrote the rows at `versions`.

    `changes` None: every history is read; `counted`: see `count_histories`, persisted. `patched`: rows
    changed in place since the tables were written whole.
    """

    changes: DataFrame | None
    counted: DataFrame | None
    versions: dict[str, int]
    patched: int
    why: str


def find_changes(warehouse: Warehouse, night: str, events: int, bundle: Bundle) -> HistoryDelta:
    """The changes to advance the stored rows by, if they can be."""
    build, why = find_earlier_build(warehouse, night, bundle, events)
    if build is None:
        return HistoryDelta(None, None, {}, 0, why)
    changes = read_changes(warehouse, night, events, build)
    if changes is None:
        return HistoryDelta(
            None,
            None,
            {},
            0,
            f"every history is read: Delta no longer knows what changed in events since night {build.ds}",
        )
    counted = count_histories(changes, bundle).persist()
    return HistoryDelta(changes, counted, build.versions, build.patched, why)


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
        "damaged": ~F.col("sound"),
    }
    return count_cases(users, {"events": F.when(tonight, F.col("events")), **cases})


def compare_users(
    warehouse: Warehouse,
    night: str,
    versions: Versions,
    bundle: Bundle,
    since: HistoryDelta,
    damaged: DataFrame | None = None,
) -> DataFrame:
    """Every user of the night or of the stored rows, with what the rows depend on and what becomes of them.

    Args:
        damaged: users whose rows are not sound; a damaged row does not tell what was read, so their histories
            are read again. None: nobody is known to have one.

    Returns:
        `user_id, user_values, events, history_xor, history_sum, fingerprint, sound, stands, merges`, and
        `PRIOR` where any can merge, empty for those that do not. Without a fingerprint the night does not
        know the user. `sound`: see `_read_stored`, null for a user without rows. `stands`: both of the user's
        rows were computed from the same history and features, and hold what was computed. `merges`: from
        the same features and a history that has only gained events since.
    """
    merging = since.counted is not None and bundle.config.variant == "lime-mha"
    if since.counted is None:
        past = read_histories(warehouse, night, versions["events"], bundle)
        now = [F.coalesce(name, F.lit(0)).alias(name) for name in HISTORY]
    else:
        past = since.counted
        now = [add_counts(F.col(f"was_{name}"), F.col(name), name) for name in HISTORY]
    stored = _read_stored(warehouse, versions, bundle.version, past if merging else None)
    if damaged is not None:
        again = read_histories(warehouse, night, versions["events"], bundle, damaged)
        past = past.join(damaged, USER_ID, "left_anti").unionByName(again)
    users = read_entity(warehouse, "users", night, versions["users"])
    values = [name for name in bundle.user_encoders if name in users.columns]
    known = users.select(USER_ID, (F.to_json(F.struct(*values)) if values else F.lit("")).alias(FEATURES))
    before = [F.coalesce(f"was_{name}", F.lit(0)) for name in HISTORY]
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
    gained = F.lit(merging) & (F.coalesce("lost", F.lit(0)) == 0)
    merges = tonight & whole & gained & ~stands & F.coalesce(F.col("was") == print_before, F.lit(False))
    prior = [
        F.when(merges, F.col(name)).otherwise(_empty(kind)).alias(name)
        for name, kind in stored.dtypes
        if name in PRIOR
    ]
    return joined.select(
        USER_ID, FEATURES, *now, F.when(tonight, print_now).alias(FINGERPRINT), "sound",
        stands.alias("stands"), merges.alias("merges"), *prior,
    )  # fmt: skip


def _read_stored(
    warehouse: Warehouse, versions: Versions, model_version: str, due: DataFrame | None
) -> DataFrame:
    """`user_id, sound, was, was_*` of stored rows: their fingerprint, and what they have read (`HISTORY`).

    `sound`: both rows are there once, hold what was computed, and were computed from the same.

    Args:
        due: users whose columns `PRIOR` are wanted too; those of the others are null. None: nobody's, and
            the columns are not there.
    """
    told = {"event_count": "was_events", **{name: f"was_{name}" for name in HISTORY[1:]}}
    sides, place = [], "user_link_states"
    for name, payload in PAYLOAD.items():
        rows = _stored(warehouse, name, versions[name], model_version)
        if name == place:
            rows = rows.where(F.length("state") > 0)  # empty: it could not be computed
        carried = {new: F.col(old) for old, new in told.items()} if name == place else {}
        if due is not None:
            rows = rows.join(due.select(USER_ID, F.lit(True).alias("due")), USER_ID, "left")
            mine = [column for column in PRIOR if column in rows.columns and column in payload]
            carried |= {column: F.when(F.col("due"), F.col(column)) for column in mine}
        sides.append(sound_fingerprints(rows, USER_ID, payload, name, carried))
    sound = F.coalesce(F.col("user_link_states") == F.col("user_memory"), F.lit(False)).alias("sound")
    both = sides[0].join(sides[1], USER_ID, "full_outer")
    read = [F.when(sound, F.col(name)).alias(name) for name in told.values()]
    prior = [name for name in PRIOR if name in both.columns]
    return both.select(USER_ID, sound, F.when(sound, F.col("user_memory")).alias("was"), *read, *prior)


def _empty(kind: str) -> Column:
    """Of a column `PRIOR` that says nothing; not null, see `stack_histories`."""
    empty = {"bigint": F.lit(0), "timestamp": F.timestamp_micros(F.lit(0)), "binary": F.lit(b"")}
    return empty.get(kind, F.array()).cast(kind)


def write_states(
    warehouse: Warehouse, rows: DataFrame, users: DataFrame, stored: Versions, model_version: str
) -> dict[str, int]:
    """Replace the model's slice of both tables by new rows and those that stand; returns their versions."""

    def write(name: str, new: DataFrame) -> int:
        old = _stored(warehouse, name, stored[name], model_version)
        standing = old.join(users.where("stands").select(USER_ID), USER_ID, "left_semi").select(new.columns)
        return warehouse.replace(name, new.unionByName(standing), equals(model_version=model_version))

    return _write_both(warehouse, rows, write)


def patch_states(
    warehouse: Warehouse, rows: DataFrame, users: DataFrame, stored: Versions, model_version: str
) -> dict[str, int]:
    """Change what is new or gone in both tables, which are at `stored`; returns their versions.

    Raises:
        WriteConflict: another writer came between; a later run does not build on this one's rows.
    """
    gone = users.where(F.col(FINGERPRINT).isNull()).select(USER_ID)

    def write(name: str, new: DataFrame) -> int:
        return patch_rows(warehouse, name, new, gone, USER_ID, model_version, stored[name])

    return _write_both(warehouse, rows, write)


def _write_both(
    warehouse: Warehouse, rows: DataFrame, write: Callable[[str, DataFrame], int]
) -> dict[str, int]:
    """`write` the rows as each table wants them, computed once."""
    rows, versions = rows.persist(), {}
    with arrow_batches_of(warehouse.spark, EVENTS_PER_BATCH):
        for name, payload in PAYLOAD.items():
            new = rows.withColumn(CHECKSUM, compute_checksum(payload))
            versions[name] = write(name, new.select(warehouse.schema(name).names))
    rows.unpersist()
    return versions


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
    events = events.withColumns({name: _empty(kind) for name, kind in users.dtypes if name in PRIOR})
    return headers.unionByName(events, allowMissingColumns=True)


def headers_of(users: DataFrame) -> list[str]:
    """Columns of a header: `HEADER`, and `PRIOR` where stored rows are merged into."""
    return [*HEADER, *(name for name in PRIOR if name in users.columns)]


def bucket_of(buckets: int) -> Column:
    """The work unit of a user: fixed by id and B alone."""
    return F.pmod(F.xxhash64(F.col(USER_ID).cast("string")), F.lit(buckets)).cast("int")
