"""Keep the tables of work that publishes nothing in separate folders, which no night reads or waits for.

    WAREHOUSE/apart/2017-12-04.evaluate-KEY/staging

An evaluation, or a full night that verifies an incremental one, runs the steps of a night over the log, the
items and the users of the warehouse. What these steps derive, and their rows of `runs`, is written to such a
folder. All of it can be computed again, so upkeep drops the folder of an old night, and forgetting a person
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
STAGED_TABLES = frozenset(("staging", "candidate_history", "bank_quarantine", "runs"))  # scoring writes these
# The steps before scoring derive the other tables from the log.
DERIVED_TABLES = STAGED_TABLES | {"candidate_bank", "item_bias", "user_link_states", "user_memory"}
DAY = 24 * 3600  # seconds


def set_apart(warehouse: Warehouse, name: str, tables: Collection[str] = DERIVED_TABLES) -> Warehouse:
    """Return the same warehouse with some tables in a separate folder.

    The same name finds the same tables again. Names that differ only in unusual characters share a folder;
    the run id distinguishes their rows.

    Args:
        warehouse: the warehouse; it is not changed.
        name: the name of the folder, which must begin with the date of a night, as `drop_old` reads it.
        tables: the names of the tables in the folder; all other tables are shared with the warehouse.
    """
    folder = f"{FOLDER}/{re.sub(r'[^A-Za-z0-9._-]', '_', name)}"
    return dataclasses.replace(warehouse, moved=dict.fromkeys(tables, folder))


def drop_old(warehouse: Warehouse, first: str, keep_days: int) -> list[str]:
    """Drop the folders of nights before `first` that were last written to more than `keep_days` ago.

    Args:
        warehouse: the warehouse that contains the folders.
        first: the date (YYYY-MM-DD) of the oldest night whose folders are kept.
        keep_days: days since the last write to a folder, before which no folder is dropped.

    Returns:
        The names of the dropped folders.
    """
    spark, root, oldest = warehouse.spark, warehouse.path(FOLDER), time.time() - keep_days * DAY
    old = [name for name in list_names(spark, root) if name[: len(first)] < first]
    # A folder that was written recently may belong to unfinished work on a past night.
    dropped = [name for name in old if newest_change(spark, f"{root}/{name}") < oldest]
    for name in dropped:
        drop_folder(spark, f"{root}/{name}")
    return dropped


def drop_all(warehouse: Warehouse) -> int:
    """Drop every folder, whichever users it holds; return the number of dropped folders."""
    root = warehouse.path(FOLDER)
    count = len(list_names(warehouse.spark, root))
    drop_folder(warehouse.spark, root)
    return count
