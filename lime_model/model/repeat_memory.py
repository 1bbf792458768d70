"""Repeat memory: what a user has taken before, and the learned boost s_u(c) of taking it again.

Nine features per (user, item) of the history: six of the pair, all relative to the user's *own last
event*, and three of the item, frozen in the bundle; so none ages between nights. The tenth input is
the pair's base score.
Several tasks share inputs and hidden units; each has its own boost.

| # | feature |
|---|---|
| 0 | log1p(count) |
| 1 | log1p(gap): days from the item's last event to the user's last |
| 2 | log1p(interval): mean days between the item's events, 0 for a single one |
| 3 | log1p(gap / (interval + 1)): overdue or not |
| 4, 5 | log1p(Σ exp(-age / days)) for the two `memory_days` |
| 6, 7, 8 | log1p of the item's events in `bias_days`, of all its events, of its users, before the cut-off |

The last three tell an item bought often by everyone from one bought often by this user, so the
bias need not trade the user's own items against new ones.

Letters: M pairs of history, Q = 9 features, Z hidden units, T tasks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lime_model.arrays import F32, Floats
from lime_model.config import MEMORY_FEATURES, ModelConfig


def compute_memory_features(
    count: Floats, gap_days: Floats, span_days: Floats, decays: Floats, fame: F32
) -> F32:
    """The features `[M, Q]`.

    Args:
        count: events of the pair `[M]`, at least 1.
        gap_days: item's last event to user's last event, days `[M]`.
        span_days: item's first event to its last, days `[M]`.
        decays: Σ exp(-age / days) for the two windows `[M, 2]`.
        fame: `Catalogue.fame` of the items `[M, 3]`.
    """
    interval = span_days / np.maximum(count - 1.0, 1.0)
    columns = [
        np.log1p(count),
        np.log1p(gap_days),
        np.log1p(interval),
        np.log1p(gap_days / (interval + 1.0)),
        np.log1p(decays[:, 0]),
        np.log1p(decays[:, 1]),
    ]
    # Of an item's counts about 4 ± 2 on a log of a million events; far from 0 the few weights train slowly.
    return np.concatenate([np.stack(columns, 1).astype(np.float32), (fame - 4.0) / 2.0], 1)


class PairCounts(NamedTuple):
    """Mergeable counts of the distinct items of one history, in id order.

    `items [m]` ids, `times [m]` events, `first`, `last [m]` days, `decays [m, 2]`: Σ exp(-(last - t) / days)
    relative to the item's own last event.
    """

    items: NDArray[np.generic]
    times: Floats
    first: Floats
    last: Floats
    decays: Floats


def count_pairs(items: NDArray[np.generic], days: Floats, windows: tuple[float, float]) -> PairCounts:
    """Counts of a time-ordered piece of a history: item ids `[N]`, event times in days `[N]`."""
    unique, inverse, count = np.unique(items, return_inverse=True, return_counts=True)
    first, last = np.empty(len(unique)), np.empty(len(unique))
    last[inverse] = days  # time order: the last write wins
    first[inverse[::-1]] = days[::-1]
    age = last[inverse] - days
    decays = [np.bincount(inverse, np.exp(-age / window), len(unique)) for window in windows]
    return PairCounts(unique, count.astype(np.float64), first, last, np.stack(decays, 1))


def merge_pairs(old: PairCounts, new: PairCounts, windows: tuple[float, float]) -> PairCounts:
    """Counts of two pieces of one history, in any order: late events merge like others."""
    items = np.union1d(old.items, new.items)
    size, at_old, at_new = len(items), np.searchsorted(items, old.items), np.searchsorted(items, new.items)
    count, first, decays = np.zeros(size), np.full(size, np.inf), np.zeros((size, 2))
    last = np.full(size, -np.inf)
    last[at_old] = old.last
    last[at_new] = np.maximum(last[at_new], new.last)
    for at, part in ((at_old, old), (at_new, new)):
        count[at] += part.times
        first[at] = np.minimum(first[at], part.first)
        decays[at] += part.decays * np.exp(-(last[at] - part.last)[:, None] / np.asarray(windows))
    return PairCounts(items, count, first, last, decays)


def pair_features(pairs: PairCounts, now: float, windows: tuple[float, float], fame: F32) -> F32:
    """The features `[m, Q]` when the user's last event was at `now` days; `fame [m, 3]` of the items."""
    gap = now - pairs.last
    decays = pairs.decays * np.exp(-gap[:, None] / np.asarray(windows))
    return compute_memory_features(pairs.times, gap, pairs.last - pairs.first, decays, fame)


class RepeatMemory(nn.Module):
    """s_u(c) from the features and the base score: `v·relu(U f + b) + skip·f + c`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(MEMORY_FEATURES + 1, config.memory_hidden)
        self.outer = nn.Linear(config.memory_hidden, len(config.mix))
        self.skip = nn.Linear(MEMORY_FEATURES + 1, len(config.mix), bias=False)
        nn.init.zeros_(self.skip.weight)
        with torch.no_grad():
            self.skip.weight[:, 0] = 1.0  # starts as "what was bought often is bought again"
            self.outer.bias.fill_(1.0)

    def forward(self, features: Tensor, base: Tensor) -> Tensor:
        """s of every task `[M, T]` from features `[M, Q]` and base scores `[M]` (links and dot, no bias)."""
        inputs = torch.cat([features, base.unsqueeze(-1)], -1)
        boost: Tensor = self.outer(torch.relu(self.inner(inputs))) + self.skip(inputs)
        return boost
