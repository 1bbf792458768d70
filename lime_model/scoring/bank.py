"""The packed bank: the eligible candidates of one night in item-id order, as files.

`<name>.arrow` holds the item ids, and for each shard its number of candidates and their statistics.
`<name>-<n>.cells` holds the factors of shard n in the order that kernels read (cells.py). It is
memory-mapped: the workers of a host map the same pages, so a bank is in memory once, whatever the number of
workers.

Letters: C candidates, n rows that are asked for, L links, F hidden units, E width of the dot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lime_model.arrays import F32, Ints
from lime_model.bundle import BundleError
from lime_model.scoring.canonical import Rows
from lime_model.scoring.cells import WIDTH, Cells, Shape, Stats

FACTORS = ("link_weights", "head_input", "dot")


@dataclass(frozen=True)
class PackedBank:
    """Factors of all candidates in shards, and their ids.

    `index` finds ids that are not integers; integers are found by binary search, as they are in ascending
    order.
    """

    shards: list[Cells]
    item_ids: pa.Array
    index: pd.Index[Any] | None

    def __len__(self) -> int:
        return len(self.item_ids)

    def take(self, rows: Ints) -> Rows:
        """Return copies of the candidates at ascending rows."""
        ends = np.cumsum([0, *map(len, self.shards)])
        cuts = np.searchsorted(rows, ends)
        parts = [
            cells.take(rows[low:high] - start)
            for cells, start, low, high in zip(self.shards, ends, cuts, cuts[1:], strict=False)
        ]
        return Rows(*(np.concatenate(side) for side in zip(*parts, strict=True)))

    def beta(self) -> F32:
        """Return the night's bias of all candidates `[C]`."""
        parts = [cells.words[:, :WIDTH].reshape(-1)[: len(cells)] for cells in self.shards]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def find(self, items: NDArray[Any]) -> Ints:
        """Return the candidate row of each item id, -1 for an id that is no candidate."""
        if self.index is not None:
            return self.index.get_indexer(pd.Index(items)).astype(np.int64)
        ids = self.item_ids.to_numpy()
        rows = np.searchsorted(ids, items)
        there = ids[np.minimum(rows, len(ids) - 1)] == items if len(ids) else np.zeros(len(items), np.bool_)
        return np.where(there, rows, -1)


class Shard(NamedTuple):
    """What the index file holds about one shard."""

    candidates: int
    stats: Stats


def find_damaged(table: pa.Table, widths: Shape) -> dict[int, str]:
    """Find rows that must not be scored, and say why.

    A row is damaged when a factor has another width, a number is not finite, or its bytes differ from what
    was written (the column `sound`, if the table has it, is false).
    """
    damaged: dict[int, str] = {}
    for name, width in zip(FACTORS, widths, strict=True):
        lengths = pc.fill_null(pc.binary_length(table[name]), 0).to_numpy()
        for row in np.flatnonzero(lengths != 4 * width):
            bytes_ = f"{name} has {lengths[row]} bytes, the model wants {4 * width}"
            gone = f"{name} is missing: no such row, unreadable columns, or numbers that are not finite"
            damaged.setdefault(int(row), bytes_ if lengths[row] else gone)
        whole = np.flatnonzero(lengths == 4 * width)
        finite = np.isfinite(_floats(table[name].take(whole), width)).all(1)
        for row in whole[~finite]:
            damaged.setdefault(int(row), f"{name} holds NaN or infinity")
    beta = pc.fill_null(table["bias"], np.nan).to_numpy()
    for row in np.flatnonzero(~np.isfinite(beta)):
        damaged.setdefault(int(row), "bias is not finite")
    if "sound" in table.column_names:
        for row in np.flatnonzero(~pc.fill_null(table["sound"], False).to_numpy()):
            damaged.setdefault(int(row), "its bytes are not those that were written (checksum)")
    return damaged


def refuse_damaged(table: pa.Table, damaged: Mapping[int, str]) -> None:
    """Fail when there is a damaged row.

    Raises:
        BundleError: a row is damaged; the message names the first item and its fault.
    """
    if damaged:
        row = min(damaged)
        raise BundleError(
            f"candidate bank: {len(damaged)} of {len(table)} rows are damaged, the first is item "
            f"{table['item_id'][row].as_py()!r}: {damaged[row]}; build the bank again under a new --run-key "
            "(jobs/build_candidate_bank.py), or let night.max_damaged_share leave such items out"
        )


def pack_shard(table: pa.Table, widths: Shape) -> Cells:
    """Pack rows of `item_id, link_weights, head_input, dot, bias` that are sorted by item id and sound."""
    a, b, d = (_floats(table[name], width) for name, width in zip(FACTORS, widths, strict=True))
    beta = table["bias"].combine_chunks().to_numpy().astype(np.float32)
    return Cells.pack(Rows(a, b, d, beta))


def shard_path(path: Path, number: int) -> Path:
    """Return the `.cells` file of a shard of the bank at `path`."""
    return path.with_name(f"{path.stem}-{number:04}.cells")


def write_index(
    path: Path, model_version: str, shape: Shape, ids: Sequence[pa.Array], shards: Sequence[Shard]
) -> None:
    """Write the `.arrow` file of a bank whose shards are already written.

    Args:
        path: the file to write.
        model_version: version of the bundle that made the factors.
        shape: L, F and E.
        ids: item ids of each shard.
        shards: number of candidates and statistics of each shard.
    """
    about = {
        "model_version": model_version,
        "shape": list(shape),
        "shards": [{"candidates": shard.candidates, "stats": shard.stats.to_json()} for shard in shards],
    }
    joined = pa.chunked_array(ids).combine_chunks()
    schema = pa.schema({"item_id": joined.type}, {"bank": json.dumps(about)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([joined], schema=schema))


def open_bank(path: Path, model_version: str) -> PackedBank:
    """Memory-map a packed bank.

    Raises:
        BundleError: the bank was packed for another model version, or its files do not belong together.
    """
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    about = json.loads(reader.schema.metadata[b"bank"])
    if about["model_version"] != model_version:
        raise BundleError(
            f"the bank was packed for model {about['model_version']} and the states are of model "
            f"{model_version}; run jobs/build_candidate_bank.py and jobs/build_link_states.py with one bundle"
        )
    ids, shape = reader.get_batch(0).column("item_id"), Shape(*about["shape"])
    shards = []
    for number, shard in enumerate(about["shards"]):
        words = _map_words(shard_path(path, number), -(-shard["candidates"] // WIDTH), shape)
        shards.append(Cells(words, shard["candidates"], shape, Stats.from_json(shard["stats"])))
    if sum(map(len, shards)) != len(ids):
        raise BundleError(
            f"{path.name} has {len(ids)} ids and its shards {sum(map(len, shards))}; score again"
        )
    # Integer ids need no hash table, which would cost every worker more memory than a copy of the ids.
    index = None if pa.types.is_integer(ids.type) else pd.Index(ids.to_numpy(zero_copy_only=False))
    return PackedBank(shards, ids, index)


def _map_words(path: Path, cells: int, shape: Shape) -> F32:
    """Map the words `[cells, shape.words]` of a shard."""
    size, expected = path.stat().st_size if path.exists() else 0, 4 * cells * shape.words
    if size != expected:
        raise BundleError(f"{path.name} has {size} bytes, the bank wants {expected}; score the night again")
    if cells == 0:
        return np.zeros((0, shape.words), np.float32)
    return np.memmap(path, np.float32, "r", shape=(cells, shape.words))


def _floats(column: pa.ChunkedArray, width: int) -> F32:
    """Return the blobs of a column as rows of fp32 numbers `[n, width]`."""
    return np.frombuffer(b"".join(column.to_pylist()), "<f4").reshape(-1, width)
