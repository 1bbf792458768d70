"""Pack the bank's rows of one partition into a shard, in chunks; `pack_shards` is the body of a UDF."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from lime_model.scoring.bank import find_damaged, pack_shard, refuse_damaged
from lime_model.scoring.cells import Shape

SCHEMA = "chunk int, about string, ids binary, damaged binary, words binary"
CHUNK = 16 << 20  # bytes: far below the limits of Arrow, Spark and a driver's memory


def pack_shards(
    batches: Iterator[pa.RecordBatch], widths: Shape, *, strict: bool = True
) -> Iterator[pa.RecordBatch]:
    """Yield the shard: first a row for the index, then rows of words.

    Args:
        batches: `item_id, link_weights, head_input, dot, bias, sound` of one partition, sorted by item id.
        widths: L, F and E of the model.
        strict: fail at a damaged row; otherwise it is left out of the shard and listed in `damaged`.

    Raises:
        BundleError: a row is damaged; the message names the item.
    """
    rows = [batch for batch in batches if batch.num_rows]
    if not rows:
        return
    table = pa.Table.from_batches(rows)
    damaged = find_damaged(table, widths)
    if strict:
        refuse_damaged(table, damaged)
    ids, bad = table.select(["item_id"]), np.array(list(damaged), np.int64)
    left_out = ids.take(bad).append_column("reason", pa.array(damaged.values(), pa.string()))
    sound = np.setdiff1d(np.arange(len(table)), bad)
    cells = pack_shard(table.take(sound) if damaged else table, widths)
    about = json.dumps({"candidates": len(cells), "stats": cells.stats.to_json()})
    yield _row(0, about, _stream(ids.take(sound)), _stream(left_out), b"")
    words = cells.words.reshape(-1).view("u1")
    for chunk, start in enumerate(range(0, len(words), CHUNK)):
        yield _row(chunk + 1, "", b"", b"", words[start : start + CHUNK].tobytes())


def read_stream(raw: bytes) -> pa.Table:
    """Read the table that `ids` or `damaged` of a shard's first row holds."""
    return pa.ipc.open_stream(raw).read_all()


def _stream(table: pa.Table) -> bytes:
    """Write a table as the bytes of an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _row(chunk: int, about: str, ids: bytes, damaged: bytes, words: bytes) -> pa.RecordBatch:
    """Return one row of `SCHEMA`."""
    return pa.record_batch(
        [
            pa.array([chunk], pa.int32()),
            pa.array([about]),
            pa.array([ids], pa.binary()),
            pa.array([damaged], pa.binary()),
            pa.array([words], pa.binary()),
        ],
        names=["chunk", "about", "ids", "damaged", "words"],
    )
