"""The packed bank: eligible candidates of one night in item-id order, as two files.

`<name>.arrow` holds the item ids and what was measured of the candidates, `<name>.cells`
their factors in the order that kernels read (cells.py), memory-mapped: workers on a host
map the same pages, so a bank is in memory once however many score.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lime_model.bundle import BundleError
from lime_model.scoring.canonical import F32, Rows
from lime_model.scoring.cells import WIDTH, Cells, Shape, Stats

FACTORS = ("link_weights", "head_input", "dot")


@dataclass(frozen=True)
class PackedBank:
    """Factors of all candidates, and their ids."""

    cells: Cells
    item_ids: pa.Array
    index: pd.Index[Any]

    def find(self, items: NDArray[Any]) -> NDArray[np.int64]:
        """Candidate row of each item id, -1 for one that is no candidate."""
        return self.index.get_indexer(pd.Index(items)).astype(np.int64)


def pack_bank(table: pa.Table, path: Path, model_version: str, widths: tuple[int, int, int]) -> list[Path]:
    """Write `item_id, link_weights, head_input, dot, bias`, sorted by item id; returns the two files.

    Args:
        path: of the `.arrow` file.
        widths: L, F and E of the model.

    Raises:
        BundleError: a factor has another width, or a number is not finite (naming the item).
    """
    a, b, d = (_fixed(table, name, width) for name, width in zip(FACTORS, widths, strict=True))
    beta = table["bias"].combine_chunks().to_numpy().astype(np.float32)
    _check_finite(table, "bias", beta[:, None])
    cells = Cells.pack(Rows(a, b, d, beta))
    ids = table["item_id"].combine_chunks()
    about = {
        "model_version": model_version,
        "shape": list(cells.shape),
        "stats": cells.stats.to_json(),
    }
    schema = pa.schema({"item_id": ids.type}, {"bank": json.dumps(about)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([ids], schema=schema))
    words = path.with_suffix(".cells")
    cells.words.tofile(words)
    return [path, words]


def open_bank(path: Path, model_version: str) -> PackedBank:
    """Memory-map a packed bank.

    Raises:
        BundleError: it was packed for another model version, or the two files do not belong together.
    """
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    about = json.loads(reader.schema.metadata[b"bank"])
    if about["model_version"] != model_version:
        raise BundleError(
            f"the bank was packed for model {about['model_version']} and the states are of model "
            f"{model_version}; run jobs/build_candidate_bank.py and jobs/build_link_states.py with one bundle"
        )
    ids, shape = reader.get_batch(0).column("item_id"), Shape(*about["shape"])
    words = _map_words(path.with_suffix(".cells"), -(-len(ids) // WIDTH), shape)
    cells = Cells(words, len(ids), shape, Stats.from_json(about["stats"]))
    return PackedBank(cells, ids, pd.Index(ids.to_numpy(zero_copy_only=False)))


def _map_words(path: Path, cells: int, shape: Shape) -> F32:
    size, expected = path.stat().st_size, 4 * cells * shape.words
    if size != expected:
        raise BundleError(f"{path.name} has {size} bytes and its ids want {expected}; score the night again")
    if cells == 0:
        return np.zeros((0, shape.words), np.float32)
    return np.memmap(path, np.float32, "r", shape=(cells, shape.words))


def _fixed(table: pa.Table, name: str, width: int) -> F32:
    """A binary column as fp32 `[C, width]`."""
    column = table[name].combine_chunks()
    lengths = set(pa.compute.unique(pa.compute.binary_length(column)).to_pylist())
    if lengths - {4 * width}:
        raise BundleError(
            f"candidate bank: {name} has rows of {sorted(lengths)} bytes and the model wants {4 * width}; "
            "rebuild the bank with this bundle (jobs/build_candidate_bank.py)"
        )
    values = np.frombuffer(b"".join(column.to_pylist()), "<f4").reshape(-1, width)
    _check_finite(table, name, values)
    return values


def _check_finite(table: pa.Table, name: str, values: F32) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise BundleError(
            f"candidate bank: {len(bad)} rows of {name} hold NaN or infinity, the first is item "
            f"{table['item_id'][int(bad[0])].as_py()!r}; rebuild the bank (jobs/build_candidate_bank.py)"
        )
