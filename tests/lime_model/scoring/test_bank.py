"""The packed bank: what it gives back, and what it refuses by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lime_model.arrays import F32
from lime_model.bundle import BundleError
from lime_model.scoring.bank import (
    Shard,
    find_damaged,
    open_bank,
    pack_shard,
    refuse_damaged,
    shard_path,
    write_index,
)
from lime_model.scoring.cells import Shape

L, F, E = 3, 5, 2


def factors(rows: int) -> dict[str, F32]:
    """Random factors of as many candidates; link weights sum to 1."""
    rng = np.random.default_rng(rows)
    a = rng.random((rows, L)).astype(np.float32)
    return {
        "link_weights": a / a.sum(1, keepdims=True) if rows else a,
        "head_input": rng.standard_normal((rows, F)).astype(np.float32),
        "dot": rng.standard_normal((rows, E)).astype(np.float32),
    }


def bank_table(sides: dict[str, F32], bias: F32) -> pa.Table:
    """The candidates as rows of the bank's table, with ids 10, 11, …"""
    blobs = {name: pa.array([row.tobytes() for row in side], pa.binary()) for name, side in sides.items()}
    ids = pa.array(range(10, 10 + len(bias)), pa.int64())
    return pa.table({"item_id": ids, **blobs, "bias": pa.array(bias, pa.float32())})


def pack(folder: Path, sides: dict[str, F32], bias: F32 | None = None, cut: int = 0) -> Path:
    """Pack into `folder` as model v1, in two shards when `cut`."""
    beta = np.zeros(len(sides["dot"]), np.float32) if bias is None else bias
    path, table = folder / "bank.arrow", bank_table(sides, beta)
    shards = []
    for number, part in enumerate((table.slice(0, cut), table.slice(cut)) if cut else (table,)):
        cells = pack_shard(part, Shape(L, F, E))
        cells.words.tofile(shard_path(path, number))
        shards.append(Shard(len(cells), cells.stats))
    write_index(path, "v1", Shape(L, F, E), [table["item_id"].combine_chunks()], shards)
    return path


@pytest.mark.parametrize("cut", [0, 1, 31, 40])
@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 100])
def test_a_bank_comes_back_as_it_was_packed(tmp_path: Path, rows: int, cut: int) -> None:
    sides = factors(rows)
    beta = np.arange(rows, dtype=np.float32)
    bank = open_bank(pack(tmp_path, sides, beta, cut), "v1")
    assert len(bank) == rows
    assert bank.item_ids.to_pylist() == list(range(10, 10 + rows))
    parts = [shard.take(np.arange(len(shard))) for shard in bank.shards]
    back = [np.concatenate(side) for side in zip(*parts, strict=True)]
    expected = (*sides.values(), beta)
    assert all(
        x.tobytes() == y.tobytes() for x, y in zip(map(np.ascontiguousarray, back), expected, strict=True)
    )
    assert bank.find(np.asarray([9, 10, 10 + rows])).tolist() == [-1, 0 if rows else -1, -1]


def test_its_words_are_mapped_and_not_read(tmp_path: Path) -> None:
    assert isinstance(open_bank(pack(tmp_path, factors(40)), "v1").shards[0].words, np.memmap)


def test_another_model_version_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path, factors(4))
    with pytest.raises(BundleError, match=r"packed for model v1 and the states are of model v2.*one bundle"):
        open_bank(path, "v2")


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path, factors(40))
    words = shard_path(path, 0)
    words.write_bytes(words.read_bytes()[:-4])
    with pytest.raises(BundleError, match=r"bank-0000\.cells has \d+ bytes, the bank wants \d+"):
        open_bank(path, "v1")


def test_a_factor_of_another_width_is_refused() -> None:
    sides = factors(4)
    sides["head_input"] = sides["head_input"][:, :-1]
    table = bank_table(sides, np.zeros(4, np.float32))
    with pytest.raises(
        BundleError, match=r"4 of 4 rows .* item 10: head_input has 16 bytes, the model wants 20"
    ):
        refuse_damaged(table, find_damaged(table, Shape(L, F, E)))


@pytest.mark.parametrize("name", ["link_weights", "head_input", "dot", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_counted_and_the_first_is_named(name: str, value: float) -> None:
    sides, beta = factors(6), np.zeros(6, np.float32)
    side = beta[:, None] if name == "bias" else sides[name]
    side[[3, 5], 0] = value
    table = bank_table(sides, beta)
    damaged = find_damaged(table, Shape(L, F, E))
    assert damaged.keys() == {3, 5}
    with pytest.raises(BundleError, match=rf"2 of 6 rows are damaged, the first is item 13: {name} "):
        refuse_damaged(table, damaged)


def test_a_row_that_is_not_what_was_written_is_damaged() -> None:
    table = bank_table(factors(3), np.zeros(3, np.float32)).append_column(
        "sound", pa.array([True, None, False])
    )
    assert find_damaged(table, Shape(L, F, E)).keys() == {1, 2}


def test_link_weights_that_do_not_sum_to_one_are_refused(tmp_path: Path) -> None:
    sides = factors(4)
    sides["link_weights"] *= 2
    with pytest.raises(
        BundleError, match="link weights must be non-negative and sum to 1; they are off by 1"
    ):
        pack(tmp_path, sides)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path, factors(40), cut=8)
    shard_path(path, 1).unlink()
    with pytest.raises(BundleError, match=r"bank-0001\.cells has 0 bytes"):
        open_bank(path, "v1")
