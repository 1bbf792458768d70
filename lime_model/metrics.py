"""Ranking metrics, one user at a time; recall divides by all relevant items.

Golden values by hand in `tests/lime_model/test_metrics.py`. No library in the stack
computes recall over *all* relevant items with a list cut, so these eight lines do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy.stats import bootstrap


def recall_at_k(ranked: Sequence[object], relevant: Collection[object]) -> float:
    """Share of `relevant` (not empty) found in `ranked`."""
    return sum(item in relevant for item in ranked) / len(relevant)


def ndcg_at_k(ranked: Sequence[object], relevant: Collection[object], k: int) -> float:
    """Discounted gain of the first k over the best possible with binary relevance."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    hits = np.fromiter((item in relevant for item in ranked[:k]), np.float64)
    return float(hits @ discount[: len(hits)] / discount[: min(k, len(relevant))].sum())


def coverage(lists: Collection[Sequence[object]], items: int) -> float:
    """Share of `items` (how many there are to recommend) that any list holds."""
    return len({item for ranked in lists for item in ranked}) / max(items, 1)


def novelty(lists: Collection[Sequence[object]], takers: Mapping[object, int], users: int) -> float:
    """Mean self-information of the listed items in bits, log2(users / takers): 1 more bit, half as known.

    An item that nobody took counts as taken by one (Zhou et al. 2010, doi:10.1073/pnas.1000488107).
    """
    listed = [takers.get(item, 1) for ranked in lists for item in ranked]
    return float(np.log2(users / np.asarray(listed, np.float64)).mean()) if listed else 0.0


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over users by resampling them, the same for the same values."""
    if len(set(values)) < 2:
        return values[0], values[0]
    found = bootstrap(
        (np.asarray(values),), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over users and its standard error."""
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
