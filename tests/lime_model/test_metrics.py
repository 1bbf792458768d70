"""Golden values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lime_model.metrics import (
    bootstrap_interval,
    coverage,
    mean_and_error,
    ndcg_at_k,
    novelty,
    recall_at_k,
)


def test_recall_divides_by_all_relevant() -> None:
    assert recall_at_k(["a", "x", "b"], {"a", "b", "c", "d"}) == 0.5
    assert recall_at_k([], {"a"}) == 0.0


def test_ndcg_by_hand() -> None:
    ideal = 1 + 1 / np.log2(3)
    assert ndcg_at_k(["x", "a", "b"], {"a", "b"}, 3) == pytest.approx((1 / np.log2(3) + 0.5) / ideal)
    assert ndcg_at_k(["a"], {"a", "b", "c"}, 1) == 1.0
    assert ndcg_at_k(["x"], {"a"}, 5) == 0.0


def test_standard_error() -> None:
    assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)


def test_coverage_and_novelty_by_hand() -> None:
    """Three of four items listed; taken by 8, 2 and (unknown) 1 of 8 users: 0, 2 and 3 bits."""
    lists = [["a", "b"], ["a", "c"]]
    assert coverage(lists, 4) == 0.75
    assert novelty(lists, {"a": 8, "b": 2}, 8) == pytest.approx((0 + 2 + 0 + 3) / 4)
    assert novelty([], {}, 8) == 0.0


def test_the_interval_holds_the_mean_and_shrinks_with_users() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.random(50).tolist(), rng.random(5000).tolist()
    for values in (few, many):
        low, high = bootstrap_interval(values)
        mean, error = mean_and_error(values)
        assert low < mean < high
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)  # the normal one, nearly
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)
