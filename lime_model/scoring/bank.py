"""The packed bank: eligible candidates of one night in item-id order, one memory-mapped Arrow file.

Workers on a host map the same pages, so a bank is in memory once however many score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lime_model.bundle import BundleError
from lime_model.scoring.canonical import F32, Rows

FACTORS = ("link_weights", "head_input", "dot")


@dataclass(frozen=True)
class PackedBank:
    """Factors of all candidates, and their ids."""

    rows: Rows
    item_ids: pa.Array
    index: pd.Index[Any]

    def find(self, items: NDArray[Any]) -> NDArray[np.int64]:
        """Candidate row of each item id, -1 for one that is no candidate."""
        return self.index.get_indexer(pd.Index(items)).astype(np.int64)


def pack_bank(table: pa.Table, path: Path, model_version: str, widths: tuple[int, int, int]) -> int:
    """Write `item_id, link_weights, head_input, dot, bias`, sorted by item id; returns the bytes.

    Args:
        widths: L, F and E of the model.

    Raises:
        BundleError: a factor has another width, or a number is not finite (naming the item).
    """
    columns = {"item_id": table["item_id"].combine_chunks()}
    for name, width in zip(FACTORS, widths, strict=True):
        columns[name] = _fixed(table, name, width)
    columns["bias"] = table["bias"].combine_chunks()
    schema = pa.schema(
        {name: column.type for name, column in columns.items()}, {"model_version": model_version}
    )
    batch = pa.record_batch(list(columns.values()), schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
    return path.stat().st_size


def open_bank(path: Path, model_version: str) -> PackedBank:
    """Memory-map a packed bank.

    Raises:
        BundleError: it was packed for another model version.
    """
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    found = reader.schema.metadata[b"model_version"].decode()
    if found != model_version:
        raise BundleError(
            f"the bank was packed for model {found} and the states are of model {model_version}; "
            "run jobs/build_candidate_bank.py and jobs/build_link_states.py with the same bundle"
        )
    batch = reader.get_batch(0)
    a, b, d = (_matrix(batch.column(name)) for name in FACTORS)
    beta = batch.column("bias").to_numpy()
    ids = batch.column("item_id")
    return PackedBank(Rows(a, b, d, beta), ids, pd.Index(ids.to_numpy(zero_copy_only=False)))


def _fixed(table: pa.Table, name: str, width: int) -> pa.Array:
    """A binary column as fixed-size lists of fp32 `[C, width]`."""
    column = table[name].combine_chunks()
    lengths = set(pa.compute.unique(pa.compute.binary_length(column)).to_pylist())
    if lengths - {4 * width}:
        raise BundleError(
            f"candidate bank: {name} has rows of {sorted(lengths)} bytes and the model wants {4 * width}; "
            "rebuild the bank with this bundle (jobs/build_candidate_bank.py)"
        )
    values = np.frombuffer(b"".join(column.to_pylist()), "<f4")
    finite = np.isfinite(values.reshape(-1, width)).all(1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise BundleError(
            f"candidate bank: {len(bad)} rows of {name} hold NaN or infinity, the first is item "
            f"{table['item_id'][int(bad[0])].as_py()!r}; rebuild the bank (jobs/build_candidate_bank.py)"
        )
    return pa.FixedSizeListArray.from_arrays(pa.array(values), width)


def _matrix(column: pa.FixedSizeListArray) -> F32:
    """Zero-copy `[C, width]` over the mapped file."""
    flat: F32 = column.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(column), column.type.list_size)
