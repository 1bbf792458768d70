"""A log in pieces, and arrays that grow on disk: training never holds the whole log in memory.

Pieces are Arrow tables that each hold whole users. The arrays that they are encoded to are appended to files
and mapped at the end, so the operating system keeps in memory only what is read. The files lie under `TMPDIR`
and are unlinked as soon as they are mapped, so nothing is left to clean up.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lime_model.errors import TrainingError

Array = NDArray[Any]
Pieces = Callable[[], Iterator[pa.Table]]  # each call walks the log from its start

PIECE_EVENTS = 500_000


def whole_users(batches: Iterable[pa.RecordBatch], events: int = PIECE_EVENTS) -> Iterator[pa.Table]:
    """Cut a stream that is sorted by `user_id` into tables of about `events` rows, each of whole users."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(part.num_rows for part in held) >= events:
            table = pa.Table.from_batches(held)
            owner = table["user_id"].to_numpy()
            cut = int(np.argmax(owner == owner[-1]))  # where the last user begins
            if cut:
                yield table.slice(0, cut)
            held = table.slice(cut).to_batches()
    if any(part.num_rows for part in held):
        yield pa.Table.from_batches(held)


def map_arrays(pieces: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """Concatenate pieces of the same arrays on disk; the result is read-only, and empty without pieces.

    Raises:
        TrainingError: the disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="lime-log-", ignore_cleanup_errors=True) as folder:
        types: dict[str, np.dtype[Any]] = {}
        for piece in pieces:
            for name, array in piece.items():
                types.setdefault(name, array.dtype)
                _append(np.ascontiguousarray(array, types[name]), Path(folder) / name)
        return {name: _map(Path(folder) / name, kind) for name, kind in types.items()}


def _append(array: Array, path: Path) -> None:
    """Append an array to a file."""
    try:
        with path.open("ab") as file:
            array.tofile(file)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise TrainingError(
            f"{path.parent}: {error}; {free / 2**20:,.0f} MiB are free there and the encoded log takes 40 "
            "bytes an event: set TMPDIR to a disk with room"
        ) from error


def _map(path: Path, kind: np.dtype[Any]) -> Array:
    """Map a file as an array."""
    if not path.stat().st_size:
        return np.zeros(0, kind)
    return np.asarray(np.memmap(path, kind, mode="r"))
