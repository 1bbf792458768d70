"""Encode items with features as rows of the candidate bank; `encode_items` is the body of a UDF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lime_model.arrays import F32
from lime_model.bundle import BundleError, worker_bundle
from lime_model.model.entries import FeatureError
from lime_model.rows.items import ItemEncoder

# Columns that are passed on unchanged. The bank's table calls the second one `fingerprint`, but here an item
# column may have that name.
PASSED = ("item_id", "_fingerprint")


def encode_items(
    batches: Iterator[pa.RecordBatch], folder: Path, *, strict: bool = True
) -> Iterator[pa.RecordBatch]:
    """Yield `item_id, _fingerprint, link_weights, head_input, dot` for each batch.

    Args:
        batches: `item_id`, `_fingerprint`, and the item columns of the bundle.
        folder: the folder of the bundle.
        strict: fail at an item whose columns can't be read or whose factors are not finite; otherwise its
            factors are left empty, and the night leaves the item out.

    Raises:
        BundleError: a factor is not finite; the message names the item.
        FeatureError: a column can't be read; the message names the item.
    """
    encoder = ItemEncoder(worker_bundle(folder))
    for batch in batches:
        ids = batch.column("item_id").to_pylist()
        columns = {
            c: batch.column(c).to_pylist() for c in encoder.bundle.item_encoders if c in batch.schema.names
        }
        inputs, faults = encoder.read(ids, columns)
        if faults and strict:
            row, fault = next(iter(faults.items()))
            raise FeatureError(
                f"item {ids[row]!r}: {fault}. Correct its drop, or let night.max_damaged_share leave such "
                "items out"
            )
        factors = encoder.encode(inputs)
        for factor in factors:
            factor[list(faults)] = np.nan
        if strict:
            for array in factors:
                _check_finite(ids, array)
        yield pa.record_batch(
            [*(batch.column(name) for name in PASSED), *map(_binary, factors)],
            names=[*PASSED, "link_weights", "head_input", "dot"],
        )


def _binary(rows: F32) -> pa.Array:
    """Return one little-endian fp32 blob for each row, empty where a number is not finite."""
    blobs = [row.astype("<f4").tobytes() if np.isfinite(row).all() else b"" for row in rows]
    return pa.array(blobs, pa.binary())


def _check_finite(ids: list[object], rows: F32) -> None:
    """Refuse factors that are not finite; the message names the first item."""
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise BundleError(
            f"{len(bad)} items have NaN or infinite factors, the first is {ids[bad[0]]!r}: "
            "the bundle is broken; train again"
        )
