"""Golden values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lime_model.metrics import mean_and_error, ndcg_at_k, recall_at_k


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
