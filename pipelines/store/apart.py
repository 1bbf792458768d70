"""Tables of work that publishes nothing, in folders of their own: nights neither read them nor wait for them.

    WAREHOUSE/apart/2017-12-04.evaluate-KEY/staging

An evaluation, or a full night that proves an incremental one, runs the steps of a night over the log, the
items and the users of the warehouse; what these steps derive, and their rows of `runs`, lies in such a
folder. All of it can be made again, so upkeep drops the folder of an old night, and forgetting a person
drops every folder.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Collection

from pipelines.store.storage import drop_folder, list_names, newest_change
from pipelines.store.tables import Warehouse

FOLDER = "apart"
# What scoring writes, and what the steps before it derive from the log.
STAGED_TABLES = frozenset(("staging", "candidate_history", "bank_quarantine", "runs"))
DERIVED_TABLES = STAGED_TABLES | {"candidate_bank", "item_bias", "user_link_states", "user_memory"}
DAY = 24 * 3600


def set_apart(warehouse: Warehouse, name: str, tables: Collection[str] = DERIVED_TABLES) -> Warehouse:
    """Return the same warehouse with some tables in the folder of `name`, which begins with a night's date.

    The same name finds the same tables again. Names that differ in unusual characters alone share a folder;
    the run id distinguishes their rows.
    """
    folder = f"{FOLDER}/{re.sub(r'[^A-Za-z0-9._-]', '_', name)}"
    return dataclasses.replace(warehouse, moved=dict.fromkeys(tables, folder))


def drop_old(warehouse: Warehouse, first: str, keep_days: int) -> list[str]:
    """Drop the folders of nights before `first` that were last written to more than `keep_days` ago.

    Returns:
        The names of the dropped folders.
    """
    spark, root, oldest = warehouse.spark, warehouse.path(FOLDER), time.time() - keep_days * DAY
    old = [name for name in list_names(spark, root) if name[: len(first)] < first]
    # A folder that was written lately may belong to work on a past night that has not ended.
    dropped = [name for name in old if newest_change(spark, f"{root}/{name}") < oldest]
    for name in dropped:
        drop_folder(spark, f"{root}/{name}")
    return dropped


def drop_all(warehouse: Warehouse) -> int:
    """Drop every folder, whichever users it holds; returns how many there were."""
    root = warehouse.path(FOLDER)
    count = len(list_names(warehouse.spark, root))
    drop_folder(warehouse.spark, root)
    return count
