"""Read the users of a night, their link states and memories, for scoring and for its certificate."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.models.pinned_inputs import NightInputs
from pipelines.schemas import BUCKET, CHECKSUM, FINGERPRINT, MODEL_VERSION, USER_ID
from pipelines.store.row_digests import compute_checksum
from pipelines.store.tables import Warehouse

READ = ("state", "slots", "weights", "items", "last_ts", "features")  # the columns that scoring reads


def read_users(
    warehouse: Warehouse,
    inputs: NightInputs,
    select_and_partition: Callable[[DataFrame], DataFrame] = lambda rows: rows,
) -> DataFrame:
    """Read states with memories, one row for each user.

    Args:
        warehouse: holds both tables.
        inputs: gives the versions of both tables and of the model.
        select_and_partition: chooses rows of each table and partitions them for the join.

    Returns:
        `user_id, bucket, fingerprint, as_of, event_count, last_event_ts`, the columns `READ`, and `sound`:
        whether the checksums of both rows are right.
    """
    versions = {"user_link_states": inputs.states, "user_memory": inputs.memory}
    states, memory = (
        select_and_partition(
            warehouse.read(name, version)
            .where(F.col(MODEL_VERSION) == inputs.model_version)
            .withColumn(name, F.col(CHECKSUM) == compute_checksum(name))
        )
        for name, version in versions.items()
    )
    memory = memory.withColumnRenamed(CHECKSUM, "memory_checksum")
    both = states.join(
        memory.select(USER_ID, "items", "last_ts", "features", "user_memory", "memory_checksum"),
        USER_ID,
        "left",  # a user without a memory is damaged, and must not vanish
    )
    intact = F.col("user_link_states") & F.col("user_memory")
    sound = F.coalesce(intact, F.lit(False)).alias("sound")
    # The checksums are included: a state with merged events and one of the complete history have the same
    # inputs, but differ in their last digits.
    rows = F.xxhash64(FINGERPRINT, CHECKSUM, "memory_checksum")
    about = ("as_of", "event_count", "last_event_ts")
    return both.select(USER_ID, BUCKET, F.hex(rows).alias(FINGERPRINT), *about, *READ, sound)
