"""Measures of drift equal golden values by hand, and the sums that their weights shorten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_model.measure.drift import PERSISTENCE, jaccard, population_stability, rank_biased_overlap


def test_jaccard_by_hand() -> None:
    assert jaccard(np.array([1, 2, 3]), np.array([3, 4])) == pytest.approx(1 / 4)
    assert jaccard(np.array([]), np.array([1])) == 0.0
    assert jaccard(np.array([]), np.array([])) == 1.0


def test_rank_biased_overlap_of_a_swap_by_hand() -> None:
    """(a, b) and (b, a): nothing agrees at depth 1, both at depth 2, so X = (0, 2)."""
    p = PERSISTENCE
    expected = 2 / 2 * p**2 + (1 - p) / p * (0 + 2 / 2 * p**2)
    assert rank_biased_overlap(np.array(["a", "b"]), np.array(["b", "a"])) == pytest.approx(expected)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_rank_biased_overlap_is_the_sum_over_depths(order: list[int], shift: int) -> None:
    a, b, p = np.arange(12), np.array(order) + shift, PERSISTENCE
    overlap = [len(set(a[:d].tolist()) & set(b[:d].tolist())) for d in range(1, 13)]
    slow = overlap[-1] / 12 * p**12 + (1 - p) / p * sum(x / d * p**d for d, x in enumerate(overlap, 1))
    assert rank_biased_overlap(a, b) == pytest.approx(slow)


def test_rank_biased_overlap_at_its_ends() -> None:
    same = np.arange(100)
    assert rank_biased_overlap(same, same) == pytest.approx(1.0)
    assert rank_biased_overlap(same, same + 100) == 0.0
    top, tail = same.copy(), same.copy()
    top[:10] += 1000
    tail[-10:] += 1000
    assert rank_biased_overlap(same, top) < rank_biased_overlap(same, tail) < 1  # the first ranks count most
    assert rank_biased_overlap(np.array([]), np.array([])) == 1.0


def test_population_stability_by_hand() -> None:
    """Two bins of a half each become a quarter and three quarters; other bins are empty in both."""
    reference, found = np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [25, 75])
    assert population_stability(reference, reference) == 0.0
    expected = -0.25 * np.log(0.25 / 0.5) + 0.25 * np.log(0.75 / 0.5)
    assert population_stability(reference, found) == pytest.approx(expected, rel=1e-3)


def test_population_stability_sees_a_shift_and_not_a_sample() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=20_000)
    assert population_stability(base, rng.normal(size=20_000)) < 0.01
    assert population_stability(base, rng.normal(1.0, size=20_000)) > 0.25
    assert np.isfinite(population_stability(base, base + 100))
