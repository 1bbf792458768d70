"""The repeat memory has the features computed by hand, and its counts merge."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lime_model.model.repeat_memory import count_pairs, merge_pairs, pair_features

WINDOWS = (90.0, 21.0)


def test_features_by_hand() -> None:
    days = np.asarray([-30.0, -20.0, -20.0, 0.0])
    pairs = count_pairs(np.asarray([7, 7, 3, 7]), days, WINDOWS)
    fame = np.asarray([[4.0, 6.0, 2.0], [0.0, 4.0, 4.0]], np.float32)
    features = pair_features(pairs, 0.0, WINDOWS, fame)
    assert pairs.items.tolist() == [3, 7]
    seven = [
        np.log1p(3), 0.0, np.log1p(15), 0.0,
        np.log1p(1 + np.exp(-30 / 90) + np.exp(-20 / 90)), np.log1p(1 + np.exp(-30 / 21) + np.exp(-20 / 21)),
        -2.0, 0.0, 0.0,
    ]  # fmt: skip
    three = [
        np.log1p(1),
        np.log1p(20),
        0.0,
        np.log1p(20),
        np.log1p(np.exp(-20 / 90)),
        np.log1p(np.exp(-20 / 21)),
        0.0,
        1.0,
        -1.0,
    ]
    np.testing.assert_allclose(features, [three, seven], rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 30.0)), min_size=1, max_size=40), st.data())
def test_pieces_merge_into_the_whole(steps: list[tuple[int, float]], data: st.DataObject) -> None:
    items = np.asarray([item for item, _ in steps])
    days = np.cumsum([gap for _, gap in steps])
    cut = data.draw(st.integers(1, len(steps)))
    whole = count_pairs(items, days, WINDOWS)
    merged = merge_pairs(
        count_pairs(items[:cut], days[:cut], WINDOWS), count_pairs(items[cut:], days[cut:], WINDOWS), WINDOWS
    )
    for mine, theirs in zip(merged, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_features_do_not_age() -> None:
    days = np.asarray([1.0, 4.0, 9.0])
    fame = np.zeros((2, 3), np.float32)
    early, late = (count_pairs(np.asarray([1, 2, 1]), days + shift, WINDOWS) for shift in (0.0, 500.0))
    np.testing.assert_allclose(
        pair_features(early, 9.0, WINDOWS, fame), pair_features(late, 509.0, WINDOWS, fame), rtol=1e-6
    )
