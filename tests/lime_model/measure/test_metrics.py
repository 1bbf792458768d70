"""Metrics equal golden values that were computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lime_model.measure.metrics import (
    auc,
    bootstrap_interval,
    calibration,
    coverage,
    grouped_auc,
    log_loss,
    mean_and_error,
    ndcg_at_k,
    normalised_entropy,
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
    assert coverage([*lists, ["untaken"]], ["a", "b", "c", "d"]) == 0.75
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
    assert np.isnan([*bootstrap_interval([]), *mean_and_error([])]).all()  # nobody took anything new


def test_auc_by_hand() -> None:
    """Two of the 2 x 2 pairs are in order, one is a tie, and one is not in order."""
    label, score = np.array([1.0, 1.0, 0.0, 0.0]), np.array([3.0, 1.0, 2.0, 1.0])
    assert auc(label, score) == (2 + 0.5) / 4
    assert np.isnan(auc(np.ones(2), np.ones(2)))
    # User 7 has an AUC of 1 over 2 labels, user 9 of 0 over 3, user 8 one label only.
    user, label = np.array([9, 7, 8, 7, 9, 9]), np.array([1.0, 0, 1, 1, 0, 0])
    assert grouped_auc(label, np.array([0.0, 1, 5, 2, 3, 4]), user) == (1 * 2 + 0 * 3) / 5
    assert np.isnan(grouped_auc(np.ones(2), np.ones(2), np.array([1, 2])))


def test_entropy_and_calibration_by_hand() -> None:
    """A prediction of 3/4 for labels of mean 3/4 is calibrated and carries no information."""
    label, logit = np.array([1.0, 1.0, 1.0, 0.0]), np.full(4, np.log(3.0))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert log_loss(label, logit) == pytest.approx(entropy)
    assert normalised_entropy(label, logit) == pytest.approx(1.0)
    assert calibration(label, logit) == pytest.approx(1.0)
    assert calibration(label, np.zeros(4)) == pytest.approx(2 / 3)
    assert log_loss(label, np.where(label > 0, 800.0, -800.0)) == 0.0
    assert np.isnan(normalised_entropy(np.ones(3), np.zeros(3)))
