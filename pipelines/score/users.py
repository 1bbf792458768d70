"""NightChanges's users as scoring and its certificate read them: link states with their memories."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.build.link_states import PAYLOAD
from pipelines.models.pinned_inputs import NightInputs
from pipelines.store.row_digests import compute_checksum
from pipelines.store.schemas import BUCKET, CHECKSUM, FINGERPRINT, MODEL_VERSION, USER_ID
from pipelines.store.tables import Warehouse

SCORED = ("state", "slots", "weights", "items", "last_ts", "features")  # of a user


def read_users(
    warehouse: Warehouse,
    inputs: NightInputs,
    select_and_partition: Callable[[DataFrame], DataFrame] = lambda rows: rows,
) -> DataFrame:
    """States with memories, one row per user; `sound`: both are as written.

    Args:
        select_and_partition: chooses rows of either table and lays them out for the join.
    """
    versions = {"user_link_states": inputs.states, "user_memory": inputs.memory}
    states, memory = (
        select_and_partition(
            warehouse.read(name, version)
            .where(F.col(MODEL_VERSION) == inputs.model_version)
            .withColumn(name, F.col(CHECKSUM) == compute_checksum(PAYLOAD[name]))
        )
        for name, version in versions.items()
    )
    memory = memory.withColumnRenamed(CHECKSUM, "memory_checksum")
    both = states.join(
        memory.select(USER_ID, "items", "last_ts", "features", "user_memory", "memory_checksum"),
        USER_ID,
        "left",  # a user without a memory is a damaged one, not one less
    )
    intact = F.col("user_link_states") & F.col("user_memory")
    sound = F.coalesce(intact, F.lit(False)).alias("sound")
    # By the rows' bytes, too: a state that was merged and one of the whole history come from the same, and
    # differ in their last digits.
    rows = F.xxhash64(FINGERPRINT, CHECKSUM, "memory_checksum")
    told = ("as_of", "event_count", "last_event_ts")
    return both.select(USER_ID, BUCKET, F.hex(rows).alias(FINGERPRINT), *told, *SCORED, sound)
