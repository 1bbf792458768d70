"""Decide which stored rows of users are reused, which merge new events, and which are computed anew.

A night's users are the rows of `users` that are valid on the day before it, plus every user id in earlier
events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.build.history_changes import HISTORY, HistoryDelta, add_counts, read_histories
from pipelines.schemas import FINGERPRINT, MODEL_VERSION, TABLES, USER_ID
from pipelines.store.catalogue import read_entity
from pipelines.store.frames import count_cases
from pipelines.store.row_digests import compute_fingerprint, sound_fingerprints
from pipelines.store.tables import Warehouse
from pipelines.udfs.reduce_states import FEATURES, PRIOR

STATES, MEMORY = "user_link_states", "user_memory"
# Columns of the history that a stored row was computed from, and their names in a comparison.
STORED_HISTORY: Final = {"event_count": "was_events", **{name: f"was_{name}" for name in HISTORY[1:]}}


@dataclass(frozen=True)
class UserComparison:
    """Compares a night's users with the stored rows of a bundle.

    Args:
        warehouse: holds the tables.
        night: the date of the night.
        bundle: the bundle whose rows are stored.
        versions: the Delta versions of `events`, `users` and the two tables of states.
        delta: how the log changed since the stored rows were written.
    """

    warehouse: Warehouse
    night: str
    bundle: Bundle
    versions: Mapping[str, int]
    delta: HistoryDelta

    @property
    def can_merge(self) -> bool:
        """Whether stored rows can merge new events: only states of LIME-MHA can."""
        return self.delta.counted is not None and self.bundle.config.variant == "lime-mha"

    def compare(self, damaged: DataFrame | None = None) -> DataFrame:
        """Return a row for each user of the night or of the stored rows.

        Args:
            damaged: the users whose stored rows are not sound. A damaged row does not say which history it
                was computed from, so these histories are read again. None if no such user is known.

        Returns:
            `user_id, user_values, events, history_xor, history_sum, fingerprint, sound, is_current, merges`,
            and the columns `PRIOR` if `can_merge`; these are empty for a user whose rows do not merge events.
            The fingerprint is null for a user whom the night does not know. `sound`: see `read_stored`; null
            for a user without rows. `is_current`: both rows of the user are intact, and were computed from
            the same history and features. `merges`: the features are the same, and the history has only
            gained events.
        """
        past = self._past(damaged)
        due = self.delta.counted if self.can_merge else None
        stored = read_stored(self.warehouse, self.versions, self.bundle.version, due)
        known = self._known_users().withColumn("listed", F.lit(True))
        joined = known.join(past, USER_ID, "full_outer").join(stored, USER_ID, "full_outer")
        now = self._history_now()
        before = [F.coalesce(f"was_{name}", F.lit(0)) for name in HISTORY]
        print_now, print_before = self._fingerprint(now), self._fingerprint(before)
        of_night = F.coalesce("listed", F.lit(False)) | (now[0] > 0)
        reusable = of_night & F.coalesce("sound", F.lit(False))
        current = reusable & F.coalesce(F.col("was") == print_now, F.lit(False))
        gained = F.lit(self.can_merge) & (F.coalesce("lost", F.lit(0)) == 0)
        merges = reusable & gained & ~current & F.coalesce(F.col("was") == print_before, F.lit(False))
        prior = [
            F.when(merges, F.col(name)).otherwise(empty_value(kind)).alias(name)
            for name, kind in stored.dtypes
            if name in PRIOR
        ]
        return joined.select(
            USER_ID, FEATURES, *now, F.when(of_night, print_now).alias(FINGERPRINT), "sound",
            current.alias("is_current"), merges.alias("merges"), *prior,
        )  # fmt: skip

    def _past(self, damaged: DataFrame | None) -> DataFrame:
        """Read the counts of all histories, or the counts of their changes and those of damaged users."""
        night, events = self.night, self.versions["events"]
        if self.delta.counted is None:
            return read_histories(self.warehouse, night, events, self.bundle)
        if damaged is None:
            return self.delta.counted
        again = read_histories(self.warehouse, night, events, self.bundle, damaged)
        return self.delta.counted.join(damaged, USER_ID, "left_anti").unionByName(again)

    def _history_now(self) -> list[Column]:
        """Return the columns `HISTORY` of the night: counted anew, or the stored ones after the changes."""
        if self.delta.counted is None:
            return [F.coalesce(name, F.lit(0)).alias(name) for name in HISTORY]
        return [add_counts(F.col(f"was_{name}"), F.col(name), name) for name in HISTORY]

    def _known_users(self) -> DataFrame:
        """Read the listed users with the bundle's user columns as JSON."""
        users = read_entity(self.warehouse, "users", self.night, self.versions["users"])
        values = [name for name in self.bundle.user_encoders if name in users.columns]
        return users.select(USER_ID, (F.to_json(F.struct(*values)) if values else F.lit("")).alias(FEATURES))

    def _fingerprint(self, history: list[Column]) -> Column:
        # The number of buckets is included: a row of another split would belong to no work unit.
        buckets = F.lit(self.warehouse.settings.night.buckets).alias("buckets")
        named = [column.alias(name) for column, name in zip(history, HISTORY, strict=True)]
        return compute_fingerprint(buckets, *named, F.col(FEATURES))


class UserCounts(NamedTuple):
    """The numbers of a night's users and their events, and of rows by what happens to them."""

    users: int
    cold_users: int  # without events
    events: int
    recomputed: int  # from the complete history
    merged: int  # new events were merged into the stored rows
    kept: int
    removed: int  # because the night does not know the user
    damaged: int


def count_users(users: DataFrame) -> UserCounts:
    """Count the users of a comparison and their events, and the rows by what happens to them."""
    of_night = F.col(FINGERPRINT).isNotNull()
    cases = {
        "users": of_night,
        "cold_users": of_night & (F.col("events") == 0),
        "recomputed": of_night & ~F.col("is_current") & ~F.col("merges"),
        "merged": of_night & F.col("merges"),
        "kept": F.col("is_current"),
        "removed": ~of_night,
        "damaged": ~F.col("sound"),
    }
    return UserCounts(**count_cases(users, {"events": F.when(of_night, F.col("events")), **cases}))


def read_stored(
    warehouse: Warehouse, versions: Mapping[str, int], model_version: str, due: DataFrame | None
) -> DataFrame:
    """Read the fingerprints of stored rows, and the histories that these were computed from.

    Args:
        warehouse: holds the tables.
        versions: the Delta versions of the two tables of states.
        model_version: the version of the bundle whose rows are wanted.
        due: the users whose columns `PRIOR` are wanted too; those of other users are null. If it is None,
            the result does not have these columns.

    Returns:
        `user_id, sound, was, was_*`: `was` is the stored fingerprint, and `was_*` are the stored `HISTORY`.
        `sound`: both rows exist once, are intact, and were computed from the same inputs.
    """
    sides = [_read_side(warehouse, name, versions[name], model_version, due) for name in (STATES, MEMORY)]
    sound = F.coalesce(F.col(STATES) == F.col(MEMORY), F.lit(False)).alias("sound")
    both = sides[0].join(sides[1], USER_ID, "full_outer")
    read = [F.when(sound, F.col(name)).alias(name) for name in STORED_HISTORY.values()]
    prior = [name for name in PRIOR if name in both.columns]
    return both.select(USER_ID, sound, F.when(sound, F.col(MEMORY)).alias("was"), *read, *prior)


def _read_side(
    warehouse: Warehouse, name: str, version: int, model_version: str, due: DataFrame | None
) -> DataFrame:
    """Read one of the two tables for `read_stored`."""
    rows = read_slice(warehouse, name, version, model_version)
    carried: dict[str, Column] = {}
    if name == STATES:
        rows = rows.where(F.length("state") > 0)  # an empty state could not be computed
        carried = {new: F.col(old) for old, new in STORED_HISTORY.items()}
    if due is not None:
        rows = rows.join(due.select(USER_ID, F.lit(True).alias("due")), USER_ID, "left")
        mine = [column for column in PRIOR if column in TABLES[name].checksummed]
        carried |= {column: F.when(F.col("due"), F.col(column)) for column in mine}
    return sound_fingerprints(rows, name, USER_ID, name, carried)


def read_slice(warehouse: Warehouse, name: str, version: int, model_version: str) -> DataFrame:
    """Read the rows of one model in a table.

    Args:
        warehouse: holds the table.
        name: `user_link_states` or `user_memory`.
        version: the Delta version of the table; -1 while the table does not exist.
        model_version: the version of the bundle that computed the rows.
    """
    return warehouse.read(name, version).where(F.col(MODEL_VERSION) == model_version)


def empty_value(kind: str) -> Column:
    """Return the empty value of a SQL type, which is not null; see `stack_histories`."""
    empty = {"bigint": F.lit(0), "timestamp": F.timestamp_micros(F.lit(0)), "binary": F.lit(b"")}
    return empty.get(kind, F.array()).cast(kind)
