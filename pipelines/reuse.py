"""Rows of earlier nights that still stand: nothing is computed twice.

A stored row stands when its fingerprint is that of tonight's inputs, so that computing it
again would give the same bytes, and when its checksum is that of its own bytes, so that a
damaged row is computed again and never handed on.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F


def compute_fingerprint(*inputs: Column) -> Column:
    """128 bits, as hex, of named inputs (see `Column.alias`).

    Of their JSON, which names the fields: plain hashes skip nulls, so that (a, null) would be
    (null, a).
    """
    return F.substring(F.sha2(F.to_json(F.struct(*inputs)), 256), 1, 32)


def compute_checksum(payload: Sequence[str]) -> Column:
    """64 bits of a row's bytes: against damage and hand edits, not against malice."""
    return F.xxhash64(*payload)
