"""UDF body: the bank's rows of one partition to a packed shard, in chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from lime_model.scoring.bank import pack_shard
from lime_model.scoring.cells import Shape

SCHEMA = "chunk int, about string, ids binary, words binary"
CHUNK = 16 << 20  # bytes: far below the limits of Arrow, Spark and a driver's memory


def pack_shards(batches: Iterator[pa.RecordBatch], widths: Shape) -> Iterator[pa.RecordBatch]:
    """Yield the shard: first a row with what the index needs, then rows of words.

    Args:
        batches: `item_id, link_weights, head_input, dot, bias` of one partition, sorted by item id.
        widths: L, F and E of the model.
    """
    rows = [batch for batch in batches if batch.num_rows]
    if not rows:
        return
    table = pa.Table.from_batches(rows)
    cells = pack_shard(table, widths)
    ids = table.select(["item_id"]).combine_chunks().to_batches()[0]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ids.schema) as writer:
        writer.write_batch(ids)
    about = json.dumps({"candidates": len(cells), "stats": cells.stats.to_json()})
    yield _row(0, about, sink.getvalue().to_pybytes(), b"")
    words = cells.words.reshape(-1).view("u1")
    for chunk, start in enumerate(range(0, len(words), CHUNK)):
        yield _row(chunk + 1, "", b"", words[start : start + CHUNK].tobytes())


def _row(chunk: int, about: str, ids: bytes, words: bytes) -> pa.RecordBatch:
    return pa.record_batch(
        [
            pa.array([chunk], pa.int32()),
            pa.array([about]),
            pa.array([ids], pa.binary()),
            pa.array([words], pa.binary()),
        ],
        names=["chunk", "about", "ids", "words"],
    )
