"""The Arrow schema of the rows of link states and repeat memories."""

from __future__ import annotations

import pyarrow as pa


def arrow_schema(incoming: pa.Schema) -> pa.Schema:
    """Return the Arrow schema of the rows; users and items keep the types of their ids."""
    ts = pa.timestamp("us", tz="UTC")
    item = incoming.field("item_id").type
    return pa.schema(
        {
            "bucket": pa.int32(),
            "user_id": incoming.field("user_id").type,
            "event_count": pa.int64(),
            "history_xor": pa.int64(),
            "history_sum": pa.int64(),
            "last_event_ts": ts,
            "slots": pa.list_(pa.int64()),
            "weights": pa.list_(pa.float32()),
            "state": pa.binary(),
            "fingerprint": pa.string(),
            "items": pa.list_(item),
            "counts": pa.list_(pa.int64()),
            "first_ts": pa.list_(ts),
            "last_ts": pa.list_(ts),
            "decays": pa.binary(),
            "features": pa.binary(),
        }
    )
