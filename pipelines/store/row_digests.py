"""Compute fingerprints and checksums of stored rows, so that unchanged rows are not computed again.

A stored row is current if its fingerprint is that of the night's inputs, as computing it again would then
give the same bytes, and if its checksum is that of its own bytes. So a damaged row is never used, but
computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.digests import code_digest
from pipelines.schemas import CHECKSUM, FINGERPRINT, MODEL_VERSION, TABLES
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable

ROWS = ("pipelines.udfs.encode_items", "pipelines.udfs.reduce_states")  # modules that compute stored rows


def row_code() -> str:
    """Name the code that computes rows and the versions of its libraries; other code may give other bits."""
    return f"{code_digest(*ROWS)} torch {torch.__version__} numpy {np.__version__}"


def compute_fingerprint(*inputs: Column) -> Column:
    """Compute a fingerprint of the code and of named inputs (see `Column.alias`): 128 bits as hex.

    It is a digest of their JSON, which names the fields. A plain hash skips nulls, so (a, null) and (null, a)
    would have the same fingerprint.
    """
    code = F.lit(row_code()).alias("code")
    return F.substring(F.sha2(F.to_json(F.struct(code, *inputs)), 256), 1, 32)


def compute_checksum(table: str) -> Column:
    """Compute the 64-bit checksum of a table's row; it detects damage and hand edits, but no forgery."""
    return F.xxhash64(*TABLES[table].checksummed)


class ModelSlice(NamedTuple):
    """The rows of one model in a table, at one version of the table.

    `key` is the column that names a row of the slice.
    """

    table: str
    key: str
    model_version: str
    version: int


def sound_fingerprints(
    rows: DataFrame, table: str, key: str, name: str, carried: Mapping[str, Column] | None = None
) -> DataFrame:
    """Select the fingerprint of each stored row, null for a damaged row and where a key has several rows.

    Args:
        rows: the stored rows of the table.
        table: the name of the table, which decides which columns the checksum covers.
        key: the column that names a row.
        name: the name that the column of fingerprints gets in the result.
        carried: further columns of the result by name.

    Returns:
        One row for each key, with `key`, `name` and the carried columns.

    Raises:
        MissingTable: an older version of this project wrote the rows, without fingerprints or checksums.
    """
    if lacking := {CHECKSUM, FINGERPRINT, *TABLES[table].checksummed} - set(rows.columns):
        raise MissingTable(
            f"stored rows with the columns {rows.columns} have no {', '.join(sorted(lacking))}: an older "
            "version wrote them. Remove candidate_bank, item_bias, user_link_states and user_memory from the "
            "warehouse (the demo: make clean); the next night builds them again"
        )
    intact = (F.col(CHECKSUM) == compute_checksum(table)).alias("intact")
    more = {new: column.alias(new) for new, column in (carried or {}).items()}
    # The checksum is computed before the aggregation, which would otherwise sort the payload of every row.
    checked = rows.select(key, FINGERPRINT, intact, *more.values())
    sound = F.first("intact") & (F.count("*") == 1)
    first = [F.first(new).alias(new) for new in more]
    return checked.groupBy(key).agg(F.when(sound, F.first(FINGERPRINT)).alias(name), *first)


def patch_rows(warehouse: Warehouse, base: ModelSlice, rows: DataFrame, gone: DataFrame) -> int:
    """Update a model's slice of a table in place with new, changed and removed rows.

    Args:
        warehouse: the warehouse that contains the table.
        base: the slice that the new rows were compared with.
        rows: the new and the changed rows.
        gone: the keys whose rows are removed.

    Returns:
        The version of the table that holds the result.

    Raises:
        WriteConflict: another writer changed the table meanwhile; see `Warehouse.upsert`.
    """
    changes = rows.unionByName(gone, allowMissingColumns=True)
    removed = F.col(f"s.{FINGERPRINT}").isNull()
    mine = F.col(f"t.{MODEL_VERSION}") == F.lit(base.model_version)
    return warehouse.upsert(base.table, changes, base.key, mine, removed, base.version)
