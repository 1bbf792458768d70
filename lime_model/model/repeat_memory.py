"""Repeat memory: the items that a user has taken before, and the learned boost s_u(c) for taking one again.

A pair of a user and an item of the user's history has nine features. Six describe the pair, all relative to
the user's *own last event*, and three describe the item and are frozen in the bundle, so no feature ages
between nights. The tenth input is the pair's base score. Tasks share inputs and hidden units; each has its
own boost.

| # | feature |
|---|---|
| 0 | log1p(count) |
| 1 | log1p(gap): days from the item's last event to the user's last |
| 2 | log1p(interval): mean days between the item's events, 0 for a single one |
| 3 | log1p(gap / (interval + 1)): overdue or not |
| 4, 5 | log1p(Σ exp(-age / days)) for the two `memory_days` |
| 6, 7, 8 | log1p of the item's events in `bias_days`, of all its events, of its users, before the cut-off |

The last three distinguish an item that everyone buys often from one that this user buys often, so the bias
does not have to balance the user's own items against new ones.

Letters: N events, M pairs of all histories, m items of one history, Q = 9 features, Z hidden units, O tasks.
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
    """Compute the features `[M, Q]`.

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
    # On a log of a million events the log counts of an item are about 4 ± 2; the few weights would train
    # slowly on inputs that far from 0.
    return np.concatenate([np.stack(columns, 1).astype(np.float32), (fame - 4.0) / 2.0], 1)


class PairCounts(NamedTuple):
    """Mergeable counts of the distinct items of one history, in id order.

    `items [m]` are ids, `times [m]` numbers of events, and `first` and `last [m]` event times in days.
    `decays [m, 2]` are Σ exp(-(last - t) / days), relative to the item's own last event.
    """

    items: NDArray[np.generic]
    times: Floats
    first: Floats
    last: Floats
    decays: Floats


def count_pairs(items: NDArray[np.generic], days: Floats, windows: tuple[float, float]) -> PairCounts:
    """Count the items of a time-ordered piece of a history.

    Args:
        items: item ids `[N]`.
        days: event times in days `[N]`.
        windows: the two `memory_days`.
    """
    unique, inverse, count = np.unique(items, return_inverse=True, return_counts=True)
    first, last = np.empty(len(unique)), np.empty(len(unique))
    last[inverse] = days  # in time order, so the last write is the last event
    first[inverse[::-1]] = days[::-1]
    age = last[inverse] - days
    decays = [np.bincount(inverse, np.exp(-age / window), len(unique)) for window in windows]
    return PairCounts(unique, count.astype(np.float64), first, last, np.stack(decays, 1))


def merge_pairs(old: PairCounts, new: PairCounts, windows: tuple[float, float]) -> PairCounts:
    """Merge the counts of two pieces of one history, in any order; late events merge like others.

    Args:
        old: counts of one piece.
        new: counts of the other piece.
        windows: the two `memory_days`.
    """
    items = np.union1d(old.items, new.items)
    size, at_old, at_new = len(items), np.searchsorted(items, old.items), np.searchsorted(items, new.items)
    count, first, decays = np.zeros(size), np.full(size, np.inf), np.zeros((size, 2))
    last = np.full(size, -np.inf)
    last[at_old] = old.last
    last[at_new] = np.maximum(last[at_new], new.last)
    # A part's decays are relative to its own last event; exp(-(new last - own last) / days) makes them
    # relative to the last event of both.
    for at, part in ((at_old, old), (at_new, new)):
        count[at] += part.times
        first[at] = np.minimum(first[at], part.first)
        decays[at] += part.decays * np.exp(-(last[at] - part.last)[:, None] / np.asarray(windows))
    return PairCounts(items, count, first, last, decays)


def pair_features(pairs: PairCounts, now: float, windows: tuple[float, float], fame: F32) -> F32:
    """Compute the features `[m, Q]` of one history.

    Args:
        pairs: counts of its items.
        now: time of the user's last event, in days.
        windows: the two `memory_days`.
        fame: `Catalogue.fame` of the items `[m, 3]`.
    """
    gap = now - pairs.last
    decays = pairs.decays * np.exp(-gap[:, None] / np.asarray(windows))
    return compute_memory_features(pairs.times, gap, pairs.last - pairs.first, decays, fame)


class RepeatMemory(nn.Module):
    """The boost s_u(c) from the features and the base score: `v·relu(U f + b) + skip·f + c`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(MEMORY_FEATURES + 1, config.memory_hidden)
        self.outer = nn.Linear(config.memory_hidden, len(config.mix))
        self.skip = nn.Linear(MEMORY_FEATURES + 1, len(config.mix), bias=False)
        nn.init.zeros_(self.skip.weight)
        with torch.no_grad():
            self.skip.weight[:, 0] = 1.0  # at the start, what was bought often is bought again
            self.outer.bias.fill_(1.0)

    def forward(self, features: Tensor, base: Tensor) -> Tensor:
        """Compute s of every task `[M, O]` from features `[M, Q]` and z `[M]` without memory."""
        inputs = torch.cat([features, base.unsqueeze(-1)], -1)
        boost: Tensor = self.outer(torch.relu(self.inner(inputs))) + self.skip(inputs)
        return boost
