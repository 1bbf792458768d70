"""Reduce users and their events to link states and repeat memory; `reduce_states` is the body of a UDF.

The rows of a user come together: first a header with the user's features (no event), then the events in
history order. A history is buffered up to `PIECE` events and reduced piece by piece, so a user with millions
of events needs no more memory than one with thousands, and a state does not depend on how Arrow cut the
stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lime_model.arrays import F32, Floats
from lime_model.bundle import BundleError, worker_bundle
from lime_model.config import DAY_US
from lime_model.model.entries import Entries, FeatureError
from lime_model.model.features import encode_rows, event_actions
from lime_model.model.repeat_memory import PairCounts, count_pairs, merge_pairs, pair_features
from lime_model.rows.link_states import PIECE, HistoryReader, decode_state, encode_state, worker_states
from pipelines.udfs import state_rows

FEATURES = "user_values"
HEADER = (FEATURES, "fingerprint", "history_xor", "history_sum")
# Columns of a stored row that new events are merged into; a header has none of them or all.
PRIOR = ("event_count", "last_event_ts", "state", "items", "counts", "first_ts", "last_ts", "decays")
FLUSH = 128  # users of one output batch


def reduce_states(
    batches: Iterator[pa.RecordBatch], folder: Path, *, strict: bool = True
) -> Iterator[pa.RecordBatch]:
    """Yield one row per user.

    Args:
        batches: `bucket, user_id, item_id, event_ts, event_type, label` and `HEADER`, sorted
            by user, header first (its `event_ts` is null), then in history order. Only a header has
            `user_values` (JSON of the user's columns by name, empty for an unknown user), and the
            `fingerprint` and hashes of what the row is computed from. If the columns `PRIOR` are there, a
            header has the stored row (an empty `state` means that nothing is stored), and only events that
            the stored row does not contain follow.
        folder: the folder of the bundle.
        strict: fail at a user whose columns can't be read or whose state is not finite; otherwise the state
            is left empty, and the night leaves the user out.

    Raises:
        BundleError: a state is not finite; the message names the user.
        FeatureError: a column can't be read; the message names the user.
    """
    torch.set_num_threads(1)
    worker = _Worker(folder, strict)
    rows: list[dict[str, Any]] = []
    schema: pa.Schema | None = None
    for batch in batches:
        schema = schema or state_rows.arrow_schema(batch.schema)
        rows += worker.take(batch)
        if len(rows) >= FLUSH:
            yield pa.RecordBatch.from_pylist(rows, schema)
            rows = []
    rows += worker.finish()
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema)


@dataclass
class _User:
    """A user whose rows are still coming; `header` has the columns that pass unchanged."""

    bucket: int
    user_id: Any
    header: dict[str, Any]
    features: Entries
    reader: HistoryReader
    readable: bool
    pairs: PairCounts | None = None
    events: int = 0
    last_us: int | None = None
    pending: list[pa.RecordBatch] = field(default_factory=list)


class _Worker:
    """Builds the rows of users, and holds the bundle and the user in progress."""

    def __init__(self, folder: Path, strict: bool) -> None:
        self.strict = strict
        bundle = worker_bundle(folder)
        self.version, self.windows = bundle.version, bundle.config.memory_days
        self.encoders, self.config = bundle.user_encoders, bundle.config
        self.catalogue = bundle.catalogue
        self.cutoff_us = int(np.datetime64(bundle.config.cutoff_ds, "us").astype(np.int64))
        self.builder = worker_states(folder)
        self.user: _User | None = None

    def take(self, batch: pa.RecordBatch) -> list[dict[str, Any]]:
        """Read the rows of a batch and return the rows of the users that ended."""
        ended = []
        headers = np.flatnonzero(batch.column("event_ts").is_null().to_numpy(zero_copy_only=False))
        opens = set(headers.tolist())
        for start, stop in pairwise(sorted({0, *opens, batch.num_rows})):
            part = batch.slice(start, stop - start)
            if start in opens:
                ended += self.finish()
                self.user = self._open(part.slice(0, 1))
                part = part.slice(1)
            if part.num_rows:
                self._feed(part)
        return ended

    def finish(self) -> list[dict[str, Any]]:
        """End the user in progress and return its row, or nothing when there is no user."""
        user, self.user = self.user, None
        if user is None:
            return []
        if user.pending:
            self._reduce(user, pa.Table.from_batches(user.pending))
        return [self._row(user)]

    def _open(self, header: pa.RecordBatch) -> _User:
        """Begin a user from the header."""
        values = json.loads(header.column(FEATURES)[0].as_py() or "{}")
        features, faults = encode_rows({name: [v] for name, v in values.items()}, self.encoders, 1)
        bucket, user_id = header.column("bucket")[0].as_py(), header.column("user_id")[0].as_py()
        through = {name: header.column(name)[0].as_py() for name in HEADER[1:]}
        if faults and self.strict:
            raise FeatureError(
                f"user {user_id!r}: {faults[0]}. Correct the drop, or let night.max_damaged_share leave such "
                "users out"
            )
        prior = {name: header.column(name)[0] for name in PRIOR if name in header.schema.names}
        before = prior["state"].as_py() if prior else b""
        reader = self.builder.open(features, before)
        user = _User(bucket, user_id, through, features, reader, readable=not faults)
        if before:
            user.events = prior["event_count"].as_py()
            user.last_us = prior["last_event_ts"].cast("int64").as_py()
            user.pairs = self._stored_pairs(prior)
        return user

    def _stored_pairs(self, prior: dict[str, pa.Scalar]) -> PairCounts:
        """Return the counts that `_row` wrote."""
        first, last = (self._days(prior[name].values.cast(pa.int64())) for name in ("first_ts", "last_ts"))
        decays = (
            np.frombuffer(prior["decays"].as_py(), "<f4").astype(np.float64).reshape(-1, len(self.windows))
        )
        times = prior["counts"].values.to_numpy().astype(np.float64)
        return PairCounts(prior["items"].values.to_numpy(zero_copy_only=False), times, first, last, decays)

    def _feed(self, part: pa.RecordBatch) -> None:
        """Add events of the user in progress, and reduce every full piece."""
        user = self.user
        assert user is not None, "the rows of a user start with its header"
        user.pending.append(part)
        while sum(p.num_rows for p in user.pending) >= PIECE:
            table = pa.Table.from_batches(user.pending)
            self._reduce(user, table.slice(0, PIECE))
            user.pending = table.slice(PIECE).to_batches()

    def _reduce(self, user: _User, events: pa.Table) -> None:
        """Merge a piece of events into the user's state and counts."""
        us = events.column("event_ts").cast(pa.int64())
        days = self._days(us)
        items = events.column("item_id")
        rows = self.catalogue.rows(items.to_pylist())
        user.reader.read(rows, event_actions(events, self.config), days)
        piece = count_pairs(items.to_numpy(), days, self.windows)
        user.pairs = piece if user.pairs is None else merge_pairs(user.pairs, piece, self.windows)
        user.events += len(us)
        last = us[-1].as_py()
        user.last_us = last if user.last_us is None else max(last, user.last_us)

    def _row(self, user: _User) -> dict[str, Any]:
        """Return the user's row, with the columns of `state_rows.arrow_schema`."""
        pairs = user.pairs or count_pairs(np.zeros(0, np.int64), np.zeros(0), self.windows)
        now = 0.0 if user.last_us is None else (user.last_us - self.cutoff_us) / DAY_US
        return {
            "bucket": user.bucket,
            "user_id": user.user_id,
            "event_count": user.events,
            **user.header,
            "last_event_ts": user.last_us,
            "slots": user.features.slots[0].tolist(),
            "weights": user.features.weights[0].tolist(),
            "state": self._state(user),
            "items": pairs.items.tolist(),
            "counts": pairs.times.astype(np.int64).tolist(),
            "first_ts": self._us(pairs.first),
            "last_ts": self._us(pairs.last),
            "decays": pairs.decays.astype("<f4").tobytes(),
            "features": self._features(pairs, now).astype("<f4").tobytes(),
        }

    def _features(self, pairs: PairCounts, now: float) -> F32:
        """Compute the memory features `[m, Q]` of the user's m items."""
        return pair_features(pairs, now, self.windows, self.catalogue.fame[self.catalogue.rows(pairs.items)])

    def _state(self, user: _User) -> bytes:
        """Return the state's bytes after reading them back: a state that can't be scored is not stored."""
        if not user.readable:
            return b""
        state = encode_state(user.reader.finish())
        try:
            decode_state(state, self.config)
        except BundleError as error:
            if not self.strict:
                return b""
            raise BundleError(
                f"user {user.user_id!r}: {error}. The state was made of {user.events} events: the bundle is "
                "broken, or an event's time is absurd; look at the user's events or train again"
            ) from error
        return state

    def _days(self, us: pa.Array | pa.ChunkedArray) -> Floats:
        """Convert microseconds since 1970 to days from the bundle's cut-off."""
        days: Floats = (us.to_numpy() - self.cutoff_us) / DAY_US
        return days

    def _us(self, days: Floats) -> list[int]:
        """Convert days from the bundle's cut-off to microseconds since 1970."""
        return (np.rint(days * DAY_US).astype(np.int64) + self.cutoff_us).tolist()
