"""How far this night's lists are from an earlier night's: one user's two lists, or two sets of scores.

`tests/lime_model/measure/test_drift.py` has golden values that were computed by hand.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from lime_model.arrays import Floats, Items

PERSISTENCE = 0.98  # p of the rank-biased overlap: the first 50 ranks weigh about two thirds
BINS = 10
FLOOR = 1e-4  # least share of a bin, as an empty bin would make the index infinite


def jaccard(a: Items, b: Items) -> float:
    """Return the number of items in both lists over that of items in either; 1 for two empty lists."""
    both = len(np.intersect1d(a, b))
    return both / (len(a) + len(b) - both) if len(a) or len(b) else 1.0


def rank_biased_overlap(a: Items, b: Items) -> float:
    """Return how far two rankings agree, with the first ranks counting most: 1 when equal, 0 when disjoint.

    It is RBO_ext of Webber, Moffat and Zobel (2010, doi:10.1145/1852102.1852106, eq. 32) at the depth of the
    longer ranking.
    """
    # An item counts from the depth at which both lists have shown it, so its part of the sum depends on that
    # rank alone.
    depth = max(len(a), len(b))
    if not depth:
        return 1.0
    _, first, second = np.intersect1d(a, b, return_indices=True)
    return float(_overlap_weights(depth)[np.maximum(first, second)].sum())


@functools.cache
def _overlap_weights(depth: int) -> Floats:
    """Return what an item adds that both lists have shown at each rank `[depth]`; the weights sum to 1."""
    ranks = np.arange(1, depth + 1)
    each = (1 - PERSISTENCE) / PERSISTENCE * PERSISTENCE**ranks / ranks
    return np.cumsum(each[::-1])[::-1] + PERSISTENCE**depth / depth


def population_stability(reference: NDArray[np.floating], found: NDArray[np.floating]) -> float:
    """Return the population stability index of `found` over tenths of `reference`: Σ (q - p) ln(q / p).

    It is 0 when both have the same distribution. By convention, values below 0.1 mean no change and values
    above 0.25 a large one (Siddiqi 2006, Credit Risk Scorecards).
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    p, q = (
        np.maximum(np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1) / len(x), FLOOR)
        for x in (reference, found)
    )
    return float(((q - p) * np.log(q / p)).sum())
