"""A log in pieces: pieces hold whole users, and the data equal those of a log in one piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from lime_model.config import ModelConfig
from lime_model.train.dataset import build_catalogue, build_training_data
from lime_model.train.event_log import item_counts
from lime_model.train.mapped_log import map_arrays, whole_users

CONFIG = ModelConfig(links=2, width=4, hidden=2, heads=1, cutoff_ds="2024-01-01")


def log(sizes: list[int]) -> pa.Table:
    """Return a log of users with `sizes` events each, few different items, and labels for some events."""
    rng, n = np.random.default_rng(0), sum(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    seconds = np.concatenate([np.sort(rng.integers(0, 10**7, size)) for size in sizes])
    return pa.table(
        {
            "user_id": owner,
            "item_id": rng.integers(0, 9, n),
            "event_ts": pa.array(1_690_000_000_000_000 + seconds * 1_000_000).cast(pa.timestamp("us", "UTC")),
            "event_type": ["purchase"] * n,
            "session_id": (seconds // 10**5).astype(str),
            "label": pa.array(rng.choice([0.0, 1.0, np.nan], n), from_pandas=True),
        }
    )


@pytest.mark.parametrize("batch", [1, 3, 7, 1000])
@pytest.mark.parametrize("events", [1, 10, 10_000])
def test_pieces_hold_whole_users_and_everything_once(batch: int, events: int) -> None:
    table = log([5, 1, 30, 2, 2])
    pieces = list(whole_users(table.to_batches(max_chunksize=batch), events))
    assert pa.concat_tables(pieces).combine_chunks().equals(table.combine_chunks())
    seen = [set(piece["user_id"].to_pylist()) for piece in pieces]
    assert sum(map(len, seen)) == 5
    if events == batch == 1:
        assert len(pieces) == 5


def test_no_events_are_no_pieces() -> None:
    assert list(whole_users([])) == []
    assert list(whole_users(log([1]).slice(0, 0).to_batches())) == []


def test_arrays_come_back_from_the_disk_and_leave_nothing() -> None:
    def pieces() -> Iterator[dict[str, np.ndarray]]:  # type: ignore[type-arg]
        yield {"a": np.arange(3), "b": np.array([0.5])}
        yield {"a": np.arange(3, 5), "b": np.array([], np.float64)}

    found = map_arrays(pieces())
    assert found["a"].tolist() == [0, 1, 2, 3, 4]
    assert found["b"].tolist() == [0.5]
    assert not found["a"].flags.writeable


def test_a_log_in_pieces_is_the_log_in_one() -> None:
    table, items = log([5, 1, 30, 2, 2]), pa.table({"item_id": pa.array([100], pa.int64())})
    users = pa.table({"user_id": pa.array([], pa.int64())})
    found = []
    for events in (1, 10_000):

        def pieces(events: int = events) -> Iterator[pa.Table]:
            return whole_users(table.to_batches(max_chunksize=4), events)

        catalogue = build_catalogue(items, pieces, {}, 2)
        found.append(build_training_data(pieces, users, catalogue, {}, CONFIG))
    one, other = found
    for mine, theirs in zip(one.log, other.log, strict=True):
        assert np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f")
    assert one.catalogue.item_ids == other.catalogue.item_ids
    assert np.array_equal(one.catalogue.fame, other.catalogue.fame)
    assert one.log.offsets.tolist() == [0, 5, 6, 36, 38, 40]


def test_counts_equal_those_by_hand_and_chunks_hold_whole_users() -> None:
    table = log([5, 1, 30, 2, 2])
    catalogue = build_catalogue(pa.table({"item_id": pa.array([], pa.int64())}), lambda: iter([table]), {}, 1)
    users = pa.table({"user_id": pa.array([], pa.int64())})
    data = build_training_data(lambda: iter([table]), users, catalogue, {}, CONFIG)
    whole = item_counts(data.log, -100.0, 30.0, 10)
    for events in (1, 6):
        assert [len(part.item) for part in data.log.chunks(events)] == {
            1: [5, 1, 30, 2, 2], 6: [6, 30, 4]
        }[events]  # fmt: skip
    pairs = {
        (user, item)
        for user, item, day in zip(
            data.log.owner(np.arange(40)).tolist(),
            data.log.item.tolist(),
            data.log.days.tolist(),
            strict=True,
        )
        if day < -100
    }
    assert whole[1:, 2].tolist() == [sum(item == i for _, item in pairs) for i in range(1, 10)]
