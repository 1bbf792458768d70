"""The other recommenders on a log of five households, two of which are asked about."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from benchmarks import recommenders
from benchmarks.journey import Journey
from lime_model.train.fit import TrainingSource

DAY = "2020-02-01"
PAST = [[0, 1], [0], [1, 2], [2, 3], [2, 3]]  # the items of each household, which bought each of them once


@pytest.fixture
def journey() -> Journey:
    """Households 10 to 14; 11 and 13 are asked about. Household 11 took item 4 three times, a year ago."""
    users = [10 + row for row, items in enumerate(PAST) for _ in items]
    items = [item for each in PAST for item in each]
    days = ["2020-01-30"] * len(users) + ["2019-02-01"] * 3
    events = pa.table(
        {
            "user_id": users + [11] * 3,
            "item_id": items + [4] * 3,
            "event_ts": np.array(days, "datetime64[us]"),
        }
    )
    entry = (events["user_id"].to_numpy() - 10, events["item_id"].to_numpy())
    past = sp.csr_array(sp.coo_array((np.ones(len(events), np.float32), entry), shape=(5, 6)))
    source = TrainingSource(lambda: iter([]), events, events)
    rows = np.array([1, 3])
    return Journey(DAY, source, events, rows + 10, np.arange(6), past, rows, past[rows], past[rows])


def test_personal_frequency_forgets_old_purchases_and_ends_with_popular_items(journey: Journey) -> None:
    forgetful, faithful = (
        recommenders.personal_frequency(journey, 7, memory)(slice(0, 2)) for memory in (30.0, 1e4)
    )
    assert np.argsort(-forgetful[0]).tolist()[:3] == [0, 4, 2]  # most households took item 2
    assert np.argsort(-faithful[0]).tolist()[:3] == [4, 0, 2]


def test_other_households_teach_which_items_are_bought_together(journey: Journey) -> None:
    """Households that are not asked about took 0 with 1, so 11 gets item 1 and not item 2."""
    for scorer in (
        recommenders.ease(journey, 1, 1.0, 1.0),
        recommenders.item_neighbours(journey, 3, 0.1),
        recommenders.blend(journey, (1, 1.0, 1.0), 0.0, 1.0, 90.0),
    ):
        scores = scorer(slice(0, 2))
        assert scores[0, 1] > scores[0, 2]
        assert scores[1, 2] > scores[1, 0]


def test_a_blend_adds_popularity_and_the_households_own_purchases(journey: Journey) -> None:
    base = recommenders.ease(journey, 1, 1.0, 1.0)(slice(0, 2))
    with np.errstate(invalid="ignore"):  # items without buyers have a score of -inf on both sides
        popular = recommenders.blend(journey, (1, 1.0, 1.0), 1.0, 0.0, 90.0)(slice(0, 2)) - base
        own = recommenders.blend(journey, (1, 1.0, 1.0), 0.0, 1.0, 90.0)(slice(0, 2)) - base
    assert np.argmax(popular[0, :5]) == np.argmax(popular[1, :5]) == 2
    assert np.flatnonzero(own[1, :5] > 1e-6).tolist() == [2, 3]
