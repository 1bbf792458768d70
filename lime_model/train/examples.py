"""Training examples from an event log: a user at a cut, and what the user took after it.

An example is (user, cut day): the history is everything strictly before the cut, and the targets are the
items of the `horizon` days after it. A session (basket) that began before the cut is never a target, so no
basket predicts itself.

Letters: B examples of a batch, N events of the longest history kept, M (example, item) pairs of the memory,
m items of one history, Q memory features, J pools, I items of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lime_model.arrays import F32, Bools, Floats, Ints
from lime_model.model.repeat_memory import count_pairs, pair_features
from lime_model.train.event_log import EventLog

FLAT = (
    "memory_item", "memory_shown", "memory_features", "pool_weights",
    "target_item", "target_task", "fresh_item", "fresh_task",
)  # fmt: skip


class HistoryPairs(NamedTuple):
    """The distinct items `[m]` of a history, their features `[m, Q]`, and each event's item place `[N]`."""

    item: Ints
    features: F32
    inverse: Ints


@dataclass(frozen=True)
class Batch:
    """The arrays of one step; `*_row` are places in the batch, `*_item` are catalogue rows."""

    item: Ints  # [B, N] catalogue rows, padding first
    event_type: Ints  # [B, N]
    days: Floats  # [B, N] counted from the example's last event, 0 or less
    keep: Bools  # [B, N]
    users: Ints  # [B]
    cuts: Ints  # [B] places of the cuts
    memory_row: Ints  # [M] pairs of the whole history, hidden items included
    memory_item: Ints  # [M]
    memory_shown: Bools  # [M], False where the item is hidden
    memory_features: F32  # [M, Q]
    pool_weights: F32  # [M, J] weight of the item in the example's pools, 0 where hidden
    type_weights: F32  # [B, J, event types]
    target_row: Ints  # targets: everything that follows the cut
    target_item: Ints
    target_task: Ints
    fresh_row: Ints  # targets that are new to the shown history, hidden items included
    fresh_item: Ints
    fresh_task: Ints


def history_pairs(
    item: Ints, days: Floats, now: float, decay_days: tuple[float, float], fame: F32
) -> HistoryPairs:
    """Compute the memory features of every distinct item in one time-ordered history.

    Args:
        item: catalogue rows `[N]`.
        days: event times `[N]`.
        now: time of the user's last event, in days.
        decay_days: the two windows of the decayed counts.
        fame: `Catalogue.fame` of all catalogue rows `[I + 1, 3]`.
    """
    pairs = count_pairs(item, days, decay_days)
    rows, inverse = pairs.items.astype(np.int64), np.searchsorted(pairs.items, item)
    return HistoryPairs(rows, pair_features(pairs, now, decay_days, fame[rows]), inverse)


@dataclass(frozen=True)
class ExampleBuilder:
    """Builds batches of examples from a log.

    Args:
        log: the events.
        cuts: days from the bundle's cut-off, ascending.
        horizon_days: days after a cut whose items are the targets.
        max_events: longest history.
        hide_share: share of a history's items that are hidden and become targets.
        decay_days: the two windows of the memory's decayed counts.
        pool_days: decays of the pools.
        fame: `Catalogue.fame` as of each cut `[cuts, I + 1, 3]`, so that no example sees later events.
        event_types: number of codes, 0 included.
        tasks: codes of the event types that are each a task; without any, every event belongs to the one
            task.
    """

    log: EventLog
    cuts: Floats
    horizon_days: float
    max_events: int
    hide_share: float
    decay_days: tuple[float, float]
    pool_days: tuple[float, ...]
    fame: F32
    event_types: int
    tasks: tuple[int, ...] = ()

    def valid(self, min_events: int) -> tuple[Ints, Ints]:
        """Find all pairs of a user and a cut with `min_events` events before the cut and one after it."""
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
        """Build one batch.

        Args:
            users: users of the log `[B]`.
            cuts: places of the cuts `[B]`.
            rng: chooses the hidden items.
        """
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
        # The memory keeps the hidden items, as it does at night; only the state and the masks lack them.
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
        """Return the weights `[J, N]` of the events in the pools (see `reduce_pools`); 0 if none is kept."""
        rates = np.array([1.0 / d for d in self.pool_days] + [0.0])
        weights = np.exp(rates[:, None] * age) * keep
        normalised: Floats = weights / np.maximum(weights.sum(1, keepdims=True), 1e-30)
        return normalised

    def _shown(self, unique: Ints, rng: np.random.Generator) -> Bools:
        """Choose the distinct items `[m]` that stay in the history; the others become targets."""
        shown: Bools = rng.random(len(unique)) >= self.hide_share
        return shown


def _sum_by(group: Ints, weights: Floats, size: int) -> F32:
    """Sum `weights [J, N]` by `group [N]`: `[J, size]`."""
    return np.stack([np.bincount(group, row, size) for row in weights]).astype(np.float32)


def _pad(x: NDArray[Any], width: int) -> NDArray[Any]:
    """Put zeros first, so that the newest events are a suffix."""
    return np.concatenate([np.zeros(width - len(x), x.dtype), x])
