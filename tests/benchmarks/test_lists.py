"""Lists and their quality, computed by hand for two households and 150 items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from benchmarks.journey import Journey
from benchmarks.lists import K, make_lists, measure
from lime_model.train.fit import TrainingSource

ITEMS = 150


def counts(*households: list[int]) -> sp.csr_array:
    dense = np.zeros((len(households), ITEMS), np.float32)
    for row, items in enumerate(households):
        dense[row, items] = 1.0
    return sp.csr_array(dense)


@pytest.fixture
def journey() -> Journey:
    """Household 0 had items 0 and 1 and takes 1, 2 and 149; household 1 had item 5 and takes it again."""
    nothing = pa.table({"user_id": []})
    before, after = counts([0, 1], [5]), counts([1, 2, 149], [5])
    source = TrainingSource(lambda: iter([]), nothing, nothing)
    return Journey(
        "2020-01-01", source, nothing, np.arange(2), np.arange(ITEMS), before, np.arange(2), before, after
    )


def test_only_lists_of_new_items_leave_out_earlier_purchases(journey: Journey) -> None:
    falling = np.tile(np.arange(ITEMS, 0, -1, dtype=np.float32), (2, 1))  # item 0 first
    lists = make_lists(lambda rows: falling[rows].copy(), journey)
    assert lists.all.tolist() == [list(range(K))] * 2
    assert lists.new[0].tolist() == list(range(2, K + 2))
    assert lists.new[1].tolist() == [*range(5), *range(6, K + 1)]
    every, fresh = measure(lists, journey)
    assert every.recall.tolist() == [pytest.approx(2 / 3), 1.0]
    best = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert every.ndcg[0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / best)
    assert fresh.recall.tolist() == [0.5]  # it finds 2 but not 149; household 1 has no new item to find


def test_items_without_a_score_are_not_listed(journey: Journey) -> None:
    scores = np.full((2, ITEMS), -np.inf, np.float32)
    scores[:, [1, 149]] = 1.0, 2.0
    lists = make_lists(lambda rows: scores[rows].copy(), journey)
    assert lists.all[0].tolist() == [149, 1] + [-1] * (K - 2)
    assert lists.new[0].tolist() == [149] + [-1] * (K - 1)
