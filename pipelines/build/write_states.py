"""Write link states and memories: patch the changed rows in place, or rewrite both tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.build.compare_users import MEMORY, STATES, UserComparison, UserCounts, read_slice
from pipelines.schemas import CHECKSUM, FINGERPRINT, USER_ID
from pipelines.store.frames import persisted
from pipelines.store.predicates import equals
from pipelines.store.row_digests import ModelSlice, compute_checksum, patch_rows
from pipelines.store.session import arrow_batches_of
from pipelines.store.tables import Warehouse

EVENTS_PER_BATCH = 8192  # the session's default suits states, which are larger than events
# With fewer users both tables are rewritten, which takes less time than two merges.
LEAST_PATCHED = 10_000
# Rewrite both tables once this share of users was patched in place; that drops dead rows.
MOST_PATCHED = 1.0


class StateWrite(NamedTuple):
    """The versions that hold the rows, and how many rows were changed in place since the last rewrite."""

    versions: dict[str, int]
    patched: int


def write_states(
    comparison: UserComparison, rows: DataFrame, users: DataFrame, counts: UserCounts
) -> StateWrite:
    """Update both tables for the night: patch them if that is safe and cheaper, else rewrite them.

    Args:
        comparison: gives the versions that the rows were compared with.
        rows: the new rows of both tables, the result of `compute_states`.
        users: the result of `UserComparison.compare`.
        counts: the result of `count_users`.

    Raises:
        WriteConflict: another writer changed the same rows. A later run does not start from the rows that
            this one wrote.
    """
    warehouse, version = comparison.warehouse, comparison.bundle.version
    base = {name: comparison.versions[name] for name in (STATES, MEMORY)}
    patched = comparison.delta.patched + counts.recomputed + counts.merged + counts.removed
    is_newest = all(warehouse.newest(name) == known for name, known in base.items())
    is_cheaper = counts.users >= LEAST_PATCHED and patched < MOST_PATCHED * counts.users

    def patch(name: str, new: DataFrame) -> int:
        gone = users.where(F.col(FINGERPRINT).isNull()).select(USER_ID)
        return patch_rows(warehouse, ModelSlice(name, USER_ID, version, base[name]), new, gone)

    def replace(name: str, new: DataFrame) -> int:
        reusable = users.where("is_current").select(USER_ID)
        old = read_slice(warehouse, name, base[name], version).join(reusable, USER_ID, "left_semi")
        rows_of_model = new.unionByName(old.select(new.columns))
        return warehouse.replace(name, rows_of_model, equals(model_version=version))

    if is_newest and is_cheaper and not counts.damaged:
        return StateWrite(_write_both(warehouse, rows, patch), patched)
    return StateWrite(_write_both(warehouse, rows, replace), 0)


def _write_both(
    warehouse: Warehouse, rows: DataFrame, write: Callable[[str, DataFrame], int]
) -> dict[str, int]:
    """Compute the rows once and write the columns of each table; return the new versions by table."""
    versions = {}
    with persisted(rows) as computed, arrow_batches_of(warehouse.spark, EVENTS_PER_BATCH):
        for name in (STATES, MEMORY):
            new = computed.withColumn(CHECKSUM, compute_checksum(name))
            versions[name] = write(name, new.select(warehouse.schema(name).names))
    return versions
