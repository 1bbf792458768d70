"""From an event log to training examples: a user at a cut, and what was taken after it.

An example is (user, cut day): the history is everything strictly before the cut, the
targets are the items of the `horizon` days after it. A session (basket) that began
before the cut is never a target, so no basket predicts itself.

Letters: U users, n events, B examples of a batch, N events of the longest history
kept, M (example, item) pairs of memory, J pools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lime_model.arrays import F32, Bools, Floats, Ints
from lime_model.model.entries import Entries
from lime_model.model.features import Catalogue
from lime_model.model.repeat_memory import count_pairs, pair_features

FLAT = (
    "memory_item", "memory_shown", "memory_features", "pool_weights",
    "target_item", "target_task", "fresh_item", "fresh_task",
)  # fmt: skip


class EventLog(NamedTuple):
    """Events grouped by user, in time order within one.

    `offsets [U + 1]`, the others `[n]`, which may be mapped from disk. `item` is the catalogue row (0: not
    in the catalogue), `event_type` an action code where labels are shown, times are days from the bundle's
    cut-off, `label` is NaN where there is none.
    """

    offsets: Ints
    item: Ints
    event_type: Ints
    days: Floats
    session_start: Floats
    label: Floats

    @classmethod
    def of(
        cls, offsets: Ints, item: Ints, event_type: Ints, days: Floats, *,
        session_start: Floats | None = None, label: Floats | None = None,
    ) -> EventLog:  # fmt: skip
        """A log of which each event is a session of its own and none has a label, unless given."""
        begun = days if session_start is None else session_start
        return cls(
            offsets, item, event_type, days, begun, np.full(len(item), np.nan) if label is None else label
        )

    @property
    def owners(self) -> Ints:
        """User of every event `[n]`: for a chunk, not for a whole log."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def owner(self, events: Ints) -> Ints:
        """Users of some events, by their places in the log."""
        return np.searchsorted(self.offsets, events, side="right") - 1

    def chunks(self, events: int = 1_000_000) -> Iterator[EventLog]:
        """The log, some users at a time: at least `events` of them where there are so many."""
        users, first = len(self.offsets) - 1, 0
        while first < users:
            wanted = np.searchsorted(self.offsets, self.offsets[first] + events)
            last = min(max(int(wanted), first + 1), users)
            start = self.offsets[first]
            part = slice(start, self.offsets[last])
            yield EventLog(
                self.offsets[first : last + 1] - start,
                self.item[part],
                self.event_type[part],
                self.days[part],
                self.session_start[part],
                self.label[part],
            )
            first = last


@dataclass(frozen=True)
class TrainingData:
    """The log, the item side of it, and the users' features and ids `[U]`."""

    log: EventLog
    catalogue: Catalogue
    users: Entries
    ids: tuple[object, ...]

    def name_users(self, users: Ints, most: int = 8) -> str:
        """Some users by their ids, for a message."""
        chosen = np.unique(users)
        named = ", ".join(repr(self.ids[user]) for user in chosen[:most])
        return f"users {named}" + (f" and {len(chosen) - most} more" if len(chosen) > most else "")


class HistoryPairs(NamedTuple):
    """Distinct items of one history, their memory features `[m, Q]`, and the index of each event `[N]`."""

    item: Ints
    features: F32
    inverse: Ints


@dataclass(frozen=True)
class Batch:
    """Numpy arrays of one step; `*_row` index the batch, `*_item` the catalogue."""

    item: Ints  # [B, N] catalogue rows, padding first
    event_type: Ints  # [B, N]
    days: Floats  # [B, N], before the example's last event
    keep: Bools  # [B, N]
    users: Ints  # [B]
    cuts: Ints  # [B] index of the cut
    memory_row: Ints  # [M], of the whole history, hidden items included
    memory_item: Ints  # [M]
    memory_shown: Bools  # [M], False where the item is hidden
    memory_features: F32  # [M, Q]
    pool_weights: F32  # [M, J] of the item in its example's pools, 0 where hidden
    type_weights: F32  # [B, J, event types]
    target_row: Ints
    target_item: Ints
    target_task: Ints
    fresh_row: Ints  # targets that are new to the shown history
    fresh_item: Ints
    fresh_task: Ints


def history_pairs(
    item: Ints, days: Floats, now: float, decay_days: tuple[float, float], fame: F32
) -> HistoryPairs:
    """Memory features of every distinct item in one time-ordered history that ends at `now`.

    `fame [I + 1, 3]` of all catalogue rows.
    """
    pairs = count_pairs(item, days, decay_days)
    rows, inverse = pairs.items.astype(np.int64), np.searchsorted(pairs.items, item)
    return HistoryPairs(rows, pair_features(pairs, now, decay_days, fame[rows]), inverse)


def item_counts(log: EventLog, cut: float, window: float, rows: int) -> Ints:
    """Of every item its events in the `window` days before `cut`, all before it, and its users before it,
    `[rows, 3]`; zeros in row 0, which is every unknown item."""
    counts = np.zeros((rows, 3), np.int64)
    for part in log.chunks():
        before = part.days < cut
        item, recent = part.item[before], part.item[before & (part.days >= cut - window)]
        takers = np.unique(item * len(part.offsets) + part.owners[before]) // len(part.offsets)
        counts += np.stack([np.bincount(x, minlength=rows) for x in (recent, item, takers)], 1)
    counts[0] = 0
    return counts


def item_fame(counts: Ints) -> F32:
    """log1p of `item_counts`, as the repeat memory reads them."""
    return np.log1p(counts).astype(np.float32)


@dataclass(frozen=True)
class ExampleBuilder:
    """Builds batches from a log; `cuts` are in days, ascending."""

    log: EventLog
    cuts: Floats
    horizon_days: float
    max_events: int
    hide_share: float
    decay_days: tuple[float, float]
    pool_days: tuple[float, ...]
    fame: F32  # [cuts, I + 1, 3] as of each cut: no example sees later events
    event_types: int  # codes, 0 included
    tasks: tuple[int, ...] = ()  # codes of the event types that are each a task; none: any event is the task

    def valid(self, min_events: int) -> tuple[Ints, Ints]:
        """All (user, cut index) with at least `min_events` before and one target after the cut."""
        users, cuts = [], []
        for user in range(len(self.log.offsets) - 1):
            start, stop = self.log.offsets[user : user + 2]
            days = self.log.days[start:stop]
            before = np.searchsorted(days, self.cuts)
            after = np.searchsorted(days, self.cuts + self.horizon_days)
            chosen = np.flatnonzero((before >= min_events) & (after > before))
            users.append(np.full(len(chosen), user))
            cuts.append(chosen)
        return np.concatenate(users).astype(np.int64), np.concatenate(cuts).astype(np.int64)

    def build(self, users: Ints, cuts: Ints, rng: np.random.Generator) -> Batch:
        """One batch of examples `[B]`; all items are catalogue rows."""
        rows = [self._example(u, c, rng) for u, c in zip(users, cuts, strict=True)]
        width = max(len(r["item"]) for r in rows)
        padded: dict[str, Any] = {
            name: np.stack([_pad(r[name], width) for r in rows])
            for name in ("item", "event_type", "days", "keep")
        }
        padded["type_weights"] = np.stack([r["type_weights"] for r in rows])
        flat: dict[str, Any] = {name: np.concatenate([r[name] for r in rows]) for name in FLAT}
        for name in ("memory", "target", "fresh"):
            lengths = [len(r[name + "_item"]) for r in rows]
            flat[name + "_row"] = np.repeat(np.arange(len(rows)), lengths)
        return Batch(users=users, cuts=cuts, **padded, **flat)

    def _example(self, user: int, cut: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        start, stop = self.log.offsets[user : user + 2]
        days, day = self.log.days[start:stop], self.cuts[cut]
        middle, end = start + np.searchsorted(days, [day, day + self.horizon_days])
        item, days = self.log.item[start:middle], days[: middle - start]
        # The memory keeps the hidden items, as it does at night; only state and masks forget them.
        pairs = history_pairs(item, days, days[-1], self.decay_days, self.fame[cut])
        shown = self._shown(pairs.item, rng)
        later = self.log.session_start[middle:end] >= day
        tail = slice(-self.max_events, None)
        keep, types = shown[pairs.inverse], self.log.event_type[start:middle]
        targets, fresh = [], []
        for task in self.tasks or (None,):
            follows, before = (
                kinds == task if task is not None else np.ones(len(kinds), np.bool_)
                for kinds in (self.log.event_type[middle:end], types)
            )
            targets.append(np.unique(self.log.item[middle:end][later & follows]))
            new = np.setdiff1d(targets[-1], pairs.item, assume_unique=True)
            hidden = np.setdiff1d(np.unique(item[before]), pairs.item[shown], assume_unique=True)
            fresh.append(np.concatenate([new, hidden]))
        weights = self._pool_weights(days - days[-1], keep)
        return {
            "item": item[tail],
            "event_type": types[tail],
            "days": days[tail] - days[-1],
            "keep": keep[tail],
            "memory_item": pairs.item,
            "memory_shown": shown,
            "memory_features": pairs.features,
            "pool_weights": _sum_by(pairs.inverse, weights, len(shown)).T,
            "type_weights": _sum_by(types, weights, self.event_types),
            "target_item": np.concatenate(targets),
            "target_task": np.repeat(np.arange(len(targets)), [len(part) for part in targets]),
            "fresh_item": np.concatenate(fresh),
            "fresh_task": np.repeat(np.arange(len(fresh)), [len(part) for part in fresh]),
        }

    def _pool_weights(self, age: Floats, keep: Bools) -> Floats:
        """Weights `[J, N]` of the events in the pools, as `reduce_pools` has them; all 0 if none is kept."""
        rates = np.array([1.0 / d for d in self.pool_days] + [0.0])
        weights = np.exp(rates[:, None] * age) * keep
        normalised: Floats = weights / np.maximum(weights.sum(1, keepdims=True), 1e-30)
        return normalised

    def _shown(self, unique: Ints, rng: np.random.Generator) -> Bools:
        """Which distinct items stay in the history; the hidden share becomes targets."""
        shown: Bools = rng.random(len(unique)) >= self.hide_share
        return shown


def _sum_by(group: Ints, weights: Floats, size: int) -> F32:
    """Sums of `weights [J, N]` by group `[N]`, `[J, size]`."""
    return np.stack([np.bincount(group, row, size) for row in weights]).astype(np.float32)


def _pad(x: NDArray[Any], width: int) -> NDArray[Any]:
    """Zeros first, so that the newest events are a suffix."""
    return np.concatenate([np.zeros(width - len(x), x.dtype), x])
