"""Take the lists of unchanged users over from an earlier night.

A staged row holds a list and the entries that `lime_model/scoring/incremental/kept_entries.py` needs on a
later night. Both are written in one commit, so a crash cannot separate them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.scoring.incremental.night_changes import day_number, write_night_changes
from pipelines.models.bundles import scratch_folder
from pipelines.schemas import CHECKSUM, FINGERPRINT, ITEM_ID, POLICY, RUN_ID, USER_ID
from pipelines.score.broadcast_files import BroadcastFiles, BroadcastSender
from pipelines.store.frames import sorted_arrow
from pipelines.store.leases import Run
from pipelines.store.manifests import BaseRun
from pipelines.store.row_digests import compute_checksum
from pipelines.store.tables import Warehouse

FILE = "night-changes.arrow"
ENTRIES = ("anchor", "kept_items", "kept_z", "tau")  # columns of a staged row


def find_entries(warehouse: Warehouse, base: BaseRun, policy: str) -> DataFrame:
    """Read the staged rows whose lists can be taken over.

    The newest version of the table is read: staged rows never change, and a user whose row upkeep has dropped
    is scored in full.

    Args:
        warehouse: holds `staging`.
        base: the run that the night starts from.
        policy: the name of the policy.
    """
    known = F.col("anchor").isin(base.anchors)  # the anchor is null for a list without entries
    of_base = (F.col(RUN_ID) == base.run_id) & (F.col(POLICY) == policy) & known
    return warehouse.read("staging").where(of_base)


def take_over(
    warehouse: Warehouse,
    users: DataFrame,
    base: BaseRun | None,
    policy: str,
    select_and_partition: Callable[[DataFrame], DataFrame],
) -> DataFrame:
    """Add the entries of users who did not change since the base run; they are null for all other users.

    Args:
        warehouse: holds `staging`.
        users: the result of `read_users` with the same `select_and_partition`.
        base: the run that the night starts from; None for a full night.
        policy: name of the policy.
        select_and_partition: chooses the users of a commit and partitions them as `users` is partitioned.
    """
    if base is None:
        types = {f.name: f.dataType for f in warehouse.schema("staging") if f.name in ENTRIES}
        return users.withColumns({name: F.lit(None).cast(kind) for name, kind in types.items()})
    rows = find_entries(warehouse, base, policy)
    sound = select_and_partition(rows.where(F.col(CHECKSUM) == compute_checksum("staging")))
    entries = sound.select(USER_ID, F.col(FINGERPRINT).alias("was"), *ENTRIES)
    # The join is by the user alone: both sides are partitioned so, and a second key would shuffle them.
    same = F.col("was") == F.col(FINGERPRINT)
    joined = users.join(entries, USER_ID, "left")
    return joined.withColumns({name: F.when(same, F.col(name)) for name in ENTRIES}).drop("was")


class ShippedChanges(NamedTuple):
    """The table that workers of an incremental night read, and how many of the candidates changed."""

    files: BroadcastFiles
    candidates: int
    changed: int


def ship_night_changes(warehouse: Warehouse, run: Run, base: BaseRun) -> ShippedChanges:
    """Send the table of `lime_model/scoring/incremental/night_changes.py` to every host.

    Args:
        warehouse: holds `candidate_history`.
        run: the run that is scored.
        base: the run that the night starts from.
    """
    rows = warehouse.read("candidate_history").where(F.col(RUN_ID) == run.run_id)
    biases = [F.get("biases", F.lit(i)).alias(f"bias_{i}") for i in range(len(base.anchors))]
    table = sorted_arrow(rows.select(ITEM_ID, "since", "reference", *biases), ITEM_ID)
    night = day_number(run.ds)
    path = Path(scratch_folder()) / FILE
    names = {day_number(anchor): f"bias_{i}" for i, anchor in enumerate(base.anchors)}
    write_night_changes(path, table, night, names)
    sender = BroadcastSender(warehouse.spark.sparkContext)
    sender.add(FILE, path.read_bytes())
    changed = pc.sum(pc.equal(table["since"], night)).as_py() or 0
    return ShippedChanges(sender.finish(), len(table), changed)
