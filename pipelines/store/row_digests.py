"""Rows of earlier nights that still stand: nothing is computed twice.

A stored row stands when its fingerprint is that of tonight's inputs, so that computing it
again would give the same bytes, and when its checksum is that of its own bytes, so that a
damaged row is computed again and never handed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.digests import code_digest
from pipelines.store.schemas import CHECKSUM, FINGERPRINT, MODEL_VERSION
from pipelines.store.tables import MissingTable, Warehouse

ROWS = ("pipelines.udfs.encode_items", "pipelines.udfs.reduce_states")  # compute the stored rows


def row_code() -> str:
    """Name the code that computes rows, ours and the libraries': other code may give other bits."""
    return f"{code_digest(*ROWS)} torch {torch.__version__} numpy {np.__version__}"


def compute_fingerprint(*inputs: Column) -> Column:
    """128 bits, as hex, of the code and of named inputs (see `Column.alias`).

    Of their JSON, which names the fields: plain hashes skip nulls, so that (a, null) would be
    (null, a).
    """
    code = F.lit(row_code()).alias("code")
    return F.substring(F.sha2(F.to_json(F.struct(code, *inputs)), 256), 1, 32)


def compute_checksum(payload: Sequence[str]) -> Column:
    """64 bits of a row's bytes: against damage and hand edits, not against malice."""
    return F.xxhash64(*payload)


def sound_fingerprints(
    rows: DataFrame, key: str, payload: Sequence[str], name: str, carried: Mapping[str, Column] | None = None
) -> DataFrame:
    """`key, name`: the fingerprint of each stored row; null for a damaged one and where a key is doubled.

    Args:
        rows: of a table.
        key: names a row.
        payload: what its checksum covers.
        name: of the column of fingerprints.
        carried: further columns by name.

    Raises:
        MissingTable: an older version wrote the rows.
    """
    if lacking := {CHECKSUM, FINGERPRINT, *payload} - set(rows.columns):
        raise MissingTable(
            f"stored rows with the columns {rows.columns} have no {', '.join(sorted(lacking))}: an older "
            "version wrote them. Remove candidate_bank, item_bias, user_link_states and user_memory from the "
            "warehouse (the demo: make clean); the next night builds them again"
        )
    intact = (F.col(CHECKSUM) == compute_checksum(payload)).alias("intact")
    more = {new: column.alias(new) for new, column in (carried or {}).items()}
    # Here, not inside the aggregates: those would sort the payload of every row along.
    told = rows.select(key, FINGERPRINT, intact, *more.values())
    sound = F.first("intact") & (F.count("*") == 1)
    first = [F.first(new).alias(new) for new in more]
    return told.groupBy(key).agg(F.when(sound, F.first(FINGERPRINT)).alias(name), *first)


def patch_rows(
    warehouse: Warehouse, name: str, rows: DataFrame, gone: DataFrame, key: str, model_version: str, base: int
) -> int:
    """Bring a model's slice of a table, as of version `base`, to new rows and without the keys `gone`.

    Returns:
        The version that holds it; see `Warehouse.upsert`, also for what it raises.
    """
    changes = rows.unionByName(gone, allowMissingColumns=True)
    removed = F.col(f"s.{FINGERPRINT}").isNull()
    mine = F.col(f"t.{MODEL_VERSION}") == F.lit(model_version)
    return warehouse.upsert(name, changes, key, mine, removed, base)
