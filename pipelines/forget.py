"""Forgetting a person: their rows leave every table and export, and the files that held them are removed.

Deletes, then rewrites what deletion vectors only marked, then vacuums without retention, so that no older
version holds them either; that ends time travel, and with it pins and going back, to before this moment.
What is left is then counted in the files themselves. Run it while no night runs: a night that reads an
older version would lose its files.
"""

from __future__ import annotations

import re
from typing import Any

from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.apart import drop_all
from pipelines.columns import USER_ID
from pipelines.export import store_password
from pipelines.pins import find_pins, release
from pipelines.runs import Manifest, record
from pipelines.storage import drop_folder, list_names, path_exists, rename_folder
from pipelines.tables import Warehouse
from pipelines.training_log import drop_fetched
from pipelines.udfs.load_lists import Store
from pipelines.upkeep import vacuum

NEW = ".new"  # of a folder that is being written anew
TABLES = ("events", "users", "user_link_states", "user_memory", "staging", "recommendations")


class NotForgotten(LimeError):
    """Some file still holds the person."""


def forget_user(warehouse: Warehouse, user: str, night: str, reason: str) -> Manifest:
    """Remove a user from every table and export, and prove it.

    Args:
        user: the id as text.
        night: names the action in `runs`; the id itself is not kept there.

    Raises:
        NotForgotten: naming the table whose files still hold the user.
    """
    value: Any = int(user) if warehouse.settings.ids.user_id == "long" else user
    removed = {name: _remove(warehouse, name, value) for name in TABLES if warehouse.exists(name)}
    if warehouse.exists("events_quarantine"):
        removed["events_quarantine"] = _remove_rejected(warehouse, user)
    release(warehouse, find_pins(warehouse), "a person was forgotten")
    drop_fetched(warehouse)
    drop_all(warehouse)  # evaluations and proofs: whoever's rows they hold, they can be made again
    for name in removed:
        _purge(warehouse, name)
    exports = {"redis": _remove_keys(warehouse, user), "parquet": _remove_rows(warehouse, value)}
    left = {name: count for name in removed if (count := _count_files(warehouse, name, user))}
    again = {"redis": _remove_keys(warehouse, user), "parquet": _remove_rows(warehouse, value)}
    left |= {f"the export to {name}": count for name, count in again.items() if count}
    if left:
        raise NotForgotten(f"files of {sorted(left)} still hold rows of the user: {left}; run the job again")
    purged = {name: warehouse.version(name) for name in removed}
    manifest = {
        "reason": reason, "rows_removed": removed, **exports, "rows_left_in_files": 0, "purged": purged
    }  # fmt: skip
    number = warehouse.newest("runs") + 1
    record(warehouse, f"{night}.forget-{number}", night, "forget_user", manifest)
    return manifest


def _remove(warehouse: Warehouse, name: str, user: Any) -> int:
    count = warehouse.read(name).where(F.col(USER_ID) == user).count()
    if count:
        warehouse.delta(name).delete(F.col(USER_ID) == F.lit(user))
    return count


def _rejected(warehouse: Warehouse, user: str) -> Any:
    """Whether a rejected row, JSON under the source's own names, is of the user."""
    ingest = warehouse.settings.ingest
    names = {ingest.events.user_id, ingest.users.source.get(USER_ID, USER_ID), USER_ID}
    found = F.lit(False)
    for name in names:
        found = found | F.coalesce(F.get_json_object("row", f"$.{name}") == user, F.lit(False))
    # Of a line that is no JSON nobody knows what names the user: any word of it that is the id.
    text = F.get_json_object("row", "$._corrupt_record")
    word = rf"(?<![\w-]){re.escape(user)}(?![\w-])"
    return found | F.coalesce(text.rlike(word), F.lit(False))


def _remove_rejected(warehouse: Warehouse, user: str) -> int:
    count = warehouse.read("events_quarantine").where(_rejected(warehouse, user)).count()
    if count:
        warehouse.delta("events_quarantine").delete(_rejected(warehouse, user))
    return count


def _purge(warehouse: Warehouse, name: str) -> None:
    """Write anew what deletion vectors only marked, and remove every file of an older version."""
    warehouse.spark.sql(f"REORG TABLE delta.`{warehouse.path(name)}` APPLY (PURGE)")
    vacuum(warehouse, name, 0)


def _count_files(warehouse: Warehouse, name: str, user: str) -> int:
    """Rows of the user in the Parquet files under a table's folder, whichever version they belong to."""
    folder = warehouse.path(name)
    feed = f"{folder}/_change_data"  # which Spark does not look into by itself
    folders = [folder, *([feed] if path_exists(warehouse.spark, feed) else [])]
    files = warehouse.spark.read.option("recursiveFileLookup", "true").option("pathGlobFilter", "*.parquet")
    files = files if name == "users" else files.schema(warehouse.schema(name))
    rows = files.parquet(*folders)
    if name == "events_quarantine":
        return rows.where(_rejected(warehouse, user)).count()
    return rows.where(F.col(USER_ID).cast("string") == user).count()


def _remove_keys(warehouse: Warehouse, user: str) -> int | None:
    """Lists of the user in Redis, of every version; None without an export there."""
    settings = warehouse.settings.export.redis
    if settings is None:
        return None
    store = Store(settings.url, store_password(settings), settings.prefix, "", 0, 1.0)
    client = store.connect()
    versions = [str(version) for version in client.smembers(f"{settings.prefix}:versions")]
    return (
        int(client.unlink(*(f"{settings.prefix}:{version}:{user}" for version in versions)))
        if versions
        else 0
    )


def _remove_rows(warehouse: Warehouse, user: Any) -> int | None:
    """Rows of the user in the Parquet export: every folder that holds some is written anew."""
    settings = warehouse.settings.export.parquet
    if settings is None or not path_exists(warehouse.spark, settings.path):
        return None
    removed, root = 0, settings.path.rstrip("/")
    for night in list_names(warehouse.spark, root):
        for run in _runs(warehouse, f"{root}/{night}"):
            folder = f"{root}/{night}/{run}"
            rows = warehouse.spark.read.parquet(folder)
            count = rows.where(F.col(USER_ID) == user).count()
            if count:
                rows.where(F.col(USER_ID) != user).write.mode("overwrite").parquet(folder + NEW)
                drop_folder(warehouse.spark, folder)
                rename_folder(warehouse.spark, folder + NEW, folder)
            removed += count
    return removed


def _runs(warehouse: Warehouse, night: str) -> list[str]:
    """Folders of runs; what a forgetting that was killed left beside or instead of one is put right."""
    names = list_names(warehouse.spark, night)
    for name in (name for name in names if name.endswith(NEW)):
        whole = name.removesuffix(NEW)
        if whole in names:
            drop_folder(warehouse.spark, f"{night}/{name}")
        else:  # it was written, and the old one dropped
            rename_folder(warehouse.spark, f"{night}/{name}", f"{night}/{whole}")
    return sorted({name.removesuffix(NEW) for name in names})
