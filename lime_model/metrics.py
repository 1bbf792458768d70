"""Ranking metrics, one user at a time; recall divides by all relevant items.

Golden values by hand in `tests/lime_model/test_metrics.py`. No library in the stack
computes recall over *all* relevant items with a list cut, so these eight lines do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def recall_at_k(ranked: Sequence[object], relevant: Collection[object]) -> float:
    """Share of `relevant` (not empty) found in `ranked`."""
    return sum(item in relevant for item in ranked) / len(relevant)


def ndcg_at_k(ranked: Sequence[object], relevant: Collection[object], k: int) -> float:
    """Discounted gain of the first k over the best possible with binary relevance."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    hits = np.fromiter((item in relevant for item in ranked[:k]), np.float64)
    return float(hits @ discount[: len(hits)] / discount[: min(k, len(relevant))].sum())


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over users and its standard error."""
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0
