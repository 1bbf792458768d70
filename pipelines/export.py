"""Published lists to where they are served from: Redis or Valkey, and compacted Parquet.

Redis: a night is loaded beside the one that is served, under keys of its own version (the run that published
it), counted, and then one command moves `{prefix}:current` to it. A reader takes the version and then the
list, so it never sees a mixture; the version before stays for a grace that outlives any such reader.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Literal

import redis
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.errors import LimeError
from pipelines.columns import DS, RUN_ID, USER_ID
from pipelines.night_record import refuse_disproved
from pipelines.runs import Manifest, record
from pipelines.settings import ParquetExport, RedisExport
from pipelines.storage import drop_folder, list_names, path_exists
from pipelines.tables import MissingTable, Warehouse
from pipelines.udfs.load_lists import PIPELINE, SCHEMA, Store, count_lists, load_lists

log = logging.getLogger(__name__)

PARTS = 64  # of a load: what a killed one does not load again

# Moves `current` only from where it was when the load began: of two exports at once one is told.
FLIP = """
local now = redis.call('GET', KEYS[1]) or ''
if now ~= ARGV[1] and now ~= ARGV[2] then return now end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
"""


class ExportFailed(LimeError):
    """The store does not hold what was written, or another export was faster."""


Newer = Literal["refuse", "replace", "keep"]  # what becomes of a newer night that Redis serves


def export_recommendations(warehouse: Warehouse, night: str, *, newer: Newer = "refuse") -> Manifest:
    """Export the published lists of a night to all that the settings name.

    Args:
        newer: where Redis serves a later night: an error, or put this one in its place, or leave it.

    Raises:
        MissingTable: the night is not published.
        ListsDisproved: a full comparison has disproved its lists.
        ExportFailed: see `export_redis`.
    """
    settings = warehouse.settings.export
    if not (settings.redis or settings.parquet):
        return {"exported": "nowhere: the settings have no export"}
    version = warehouse.version("recommendations")
    rows = warehouse.read("recommendations", version).where(F.col(DS) == F.lit(night).cast("date"))
    runs = [row[0] for row in rows.select(RUN_ID).distinct().collect()]
    if not runs:
        if settings.parquet:  # of before it was taken back
            drop_folder(warehouse.spark, _folder(settings.parquet, night))
        raise MissingTable(
            f"night {night} is not published; nothing to export, and no Parquet of it is left. Where Redis "
            "still serves it, export the night before with --older"
        )
    (run_id,) = runs
    refuse_disproved(warehouse, night, run_id)
    report: Manifest = {"run_id": run_id, "versions": {"recommendations": version}}
    if settings.redis:
        report["redis"] = export_redis(rows, run_id, settings.redis, newer)
    if settings.parquet:
        report["parquet"] = export_parquet(warehouse, rows, night, run_id, settings.parquet)
    record(warehouse, run_id, night, "export_recommendations", report)
    return report


def export_redis(rows: DataFrame, run_id: str, settings: RedisExport, newer: Newer) -> Manifest:
    """Load, count, flip and drop what is no longer served.

    Raises:
        ExportFailed: a newer night is served, lists are missing from the store, or another export was faster.
    """
    started = time.monotonic()
    tasks = min(PARTS, rows.sparkSession.sparkContext.defaultParallelism)
    store = Store(
        settings.url, store_password(settings), settings.prefix, run_id, settings.ttl_days * 86_400,
        settings.keys_per_second / tasks,
    )  # fmt: skip
    client, current = store.connect(), f"{settings.prefix}:current"
    before = str(client.get(current) or "")
    if _night(before) > _night(run_id) and newer == "keep":
        log.warning("%s goes on serving %s, a newer night than %s", settings.prefix, before, run_id)
        return {"lists": 0, "served": before}
    if _night(before) > _night(run_id) and newer == "refuse":
        raise ExportFailed(
            f"{settings.prefix} serves {before}, a newer night than {run_id}; with --older it is put back"
        )
    client.sadd(f"{settings.prefix}:versions", run_id)
    # JSON is written by the JVM: Python would take longer over the numbers than the network over the lists.
    columns = F.col("candidates.item_id").alias("items"), F.col("candidates.score").alias("scores")
    part = F.pmod(F.xxhash64(USER_ID), F.lit(PARTS)).cast("int").alias("part")
    lists = rows.select(part, USER_ID, F.to_json(F.struct(*columns)).alias("list"))
    done = [int(part) for part in client.hkeys(store.parts)]
    _run(lists.where(~F.col("part").isin(done)) if done else lists, store, load_lists, tasks)
    found, wanted = _run(lists.select("part", USER_ID), store, count_lists, tasks), rows.count()
    if found != wanted:
        client.delete(store.parts)
        raise ExportFailed(
            f"{settings.prefix}: {found} of {wanted} lists of {run_id} are in the store (does it evict? see "
            f"maxmemory); {before or 'nothing'} is served as before. Run the job again: it loads all of them"
        )
    now = client.eval(FLIP, 1, current, before, run_id)
    if now != run_id:
        raise ExportFailed(
            f"{settings.prefix}: {now} was put in place by another export meanwhile; it is served"
        )
    client.unlink(store.parts)  # done: the next load of this run writes everything, with a new time to live
    dropped = _drop_others(client, settings, run_id)
    return {
        "lists": wanted, "parts_reused": len(done), "instead_of": before or None, "versions_dropped": dropped,
        "seconds": round(time.monotonic() - started, 3),
    }  # fmt: skip


def _run(lists: DataFrame, store: Store, work: Any, tasks: int) -> int:
    """The keys of all parts together."""
    sorted_lists = lists.repartition(tasks, "part").sortWithinPartitions("part")
    done = sorted_lists.mapInArrow(lambda batches: work(batches, store), SCHEMA)
    return int(done.agg(F.sum("keys")).collect()[0][0] or 0)


def _drop_others(client: redis.Redis, settings: RedisExport, run_id: str) -> list[str]:
    """Remove the versions of this and earlier nights but the served one, once no reader can hold them.

    One of a later night may be on its way; it stands until it is served, or its keys end by themselves.
    """
    known = {str(version) for version in client.smembers(f"{settings.prefix}:versions")}
    others = sorted(v for v in known - {run_id} if _night(v) <= _night(run_id))
    if others:
        time.sleep(settings.grace_seconds)
    for version in others:
        for keys in _batches(client, f"{settings.prefix}:{version}:*"):
            client.unlink(*keys)
            time.sleep(len(keys) / settings.keys_per_second)
        client.unlink(f"{settings.prefix}-parts:{version}")
        client.srem(f"{settings.prefix}:versions", version)
    return others


def _batches(client: redis.Redis, pattern: str) -> Any:
    keys: list[str] = []
    for key in client.scan_iter(pattern, count=PIPELINE):
        keys.append(str(key))
        if len(keys) == PIPELINE:
            yield keys
            keys = []
    if keys:
        yield keys


def store_password(settings: RedisExport) -> str | None:
    """What the environment says.

    Raises:
        ExportFailed: it does not.
    """
    name = settings.password_env
    if name and name not in os.environ:
        raise ExportFailed(
            f"export.redis.password_env names {name}, and the environment has no such variable"
        )
    return os.environ[name] if name else None


def _night(run_id: str) -> str:
    return run_id.split(".")[0]


def export_parquet(
    warehouse: Warehouse, rows: DataFrame, night: str, run_id: str, settings: ParquetExport
) -> Manifest:
    """A folder a night and run, complete when it holds `_SUCCESS`; other runs of the night then go."""
    folder = _folder(settings, night)
    ranked = rows.select(USER_ID, F.posexplode("candidates").alias("rank", "candidate"))
    flat = ranked.select(USER_ID, (F.col("rank") + 1).alias("rank"), "candidate.item_id", "candidate.score")
    count = rows.count()
    files = max(1, -(-count // settings.users_per_file))
    ordered = flat.repartitionByRange(files, USER_ID).sortWithinPartitions(USER_ID, "rank")
    if not path_exists(warehouse.spark, f"{folder}/run={run_id}/_SUCCESS"):  # else it is being read
        ordered.write.mode("overwrite").parquet(f"{folder}/run={run_id}")
    for name in list_names(warehouse.spark, folder):
        if name != f"run={run_id}":
            drop_folder(warehouse.spark, f"{folder}/{name}")
    return {"path": f"{folder}/run={run_id}", "users": count, "files": files}


def _folder(settings: ParquetExport, night: str) -> str:
    return f"{settings.path.rstrip('/')}/night={night}"
