"""Manifests: what each job of a run read, wrote, counted and took, one row per (run, job).

A job that finds its own row has been done before and changes nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.columns import DS, RUN_ID
from pipelines.leases import Run
from pipelines.tables import Known, MissingTable, Warehouse, WriteConflict, local_rows
from pipelines.worker_errors import worker_errors

Manifest = dict[str, Any]


def find_manifest(warehouse: Warehouse, run_id: str, job: str) -> Manifest | None:
    """The manifest of a finished job, or None.

    What this process has seen stands, as a finished job's manifest never changes; what it has
    not seen is looked for again when `runs` has a commit that this process did not write.
    """
    version = warehouse.newest("runs")
    known = warehouse.manifests.get(run_id)
    if known is None or (job not in known.jobs and known.version != version):
        rows = warehouse.read("runs").where(F.col(RUN_ID) == run_id).select("job", "manifest").collect()
        known = Known(version, {row["job"]: json.loads(row["manifest"]) for row in rows})
        warehouse.manifests[run_id] = known
    found: Manifest | None = known.jobs.get(job)
    return found


class Done(NamedTuple):
    """A job that a run finished."""

    run_id: str
    ds: str
    job: str
    manifest: Manifest


def find_manifests(warehouse: Warehouse, *jobs: str, where: Column | None = None) -> list[Done]:
    """What all runs finished of these jobs, in no order."""
    rows = warehouse.read("runs").where(F.col("job").isin(*jobs))
    rows = rows if where is None else rows.where(where)
    found = rows.select(RUN_ID, F.col(DS).cast("string"), "job", "manifest").collect()
    return [Done(run_id, ds, job, json.loads(manifest)) for run_id, ds, job, manifest in found]


def first_readable(warehouse: Warehouse, table: str) -> int:
    """The oldest version of a table that forgetting a person has left whole; see `forget.py`."""
    purged = find_manifests(warehouse, "forget_user")
    return max((done.manifest["purged"].get(table, 0) for done in purged), default=0)


def need_manifest(warehouse: Warehouse, run: Run, job: str) -> Manifest:
    """The manifest of a job that must have run before.

    Raises:
        MissingTable: it has not.
    """
    manifest = find_manifest(warehouse, run.run_id, job)
    if manifest is None:
        raise MissingTable(
            f"night {run.ds}, run {run.key!r}: {job} has not finished; run jobs/{job}.py first "
            "with the same --ds and --run-key"
        )
    return manifest


def once(warehouse: Warehouse, run: Run, job: str, work: Callable[[], Manifest]) -> Manifest:
    """Do `work` unless this run has done it, and record its manifest with the seconds it took."""
    done = find_manifest(warehouse, run.run_id, job)
    if done is not None:
        return {**done, "reused": True}
    started = time.monotonic()
    with worker_errors():
        manifest = work()
    manifest["seconds"] = round(time.monotonic() - started, 3)
    if not _add(
        warehouse, run.run_id, run.ds, job, manifest
    ):  # another attempt was faster: its answer stands
        return {**need_manifest(warehouse, run, job), "reused": True}
    return manifest


def record(warehouse: Warehouse, run_id: str, ds: str, job: str, manifest: Manifest) -> None:
    """Write or rewrite one row of `runs`."""
    if find_manifest(warehouse, run_id, job) is None and _add(warehouse, run_id, ds, job, manifest):
        return
    if find_manifest(warehouse, run_id, job) != manifest:
        rows = _row(warehouse, run_id, ds, job, manifest)
        warehouse.replace("runs", rows, f"run_id = '{run_id}' AND job = '{job}'")
        _remember(warehouse, run_id, job, manifest)


def _add(warehouse: Warehouse, run_id: str, ds: str, job: str, manifest: Manifest) -> bool:
    """Write the first row of a job; False when another process has written one meanwhile."""
    tag = uuid.uuid4().hex
    try:
        rows = _row(warehouse, run_id, ds, job, manifest)
        warehouse.append("runs", rows, metadata=tag, txn=(f"{run_id}-{job}", 1))
    except WriteConflict:
        warehouse.manifests.pop(run_id)
        if find_manifest(warehouse, run_id, job) is None:
            raise
        return False
    if warehouse.find_commit("runs", tag) is None:  # Delta lets the first one in, and says nothing
        warehouse.manifests.pop(run_id)
        return False
    _remember(warehouse, run_id, job, manifest)
    return True


def _row(warehouse: Warehouse, run_id: str, ds: str, job: str, manifest: Manifest) -> DataFrame:
    row = {
        RUN_ID: run_id,
        DS: dt.date.fromisoformat(ds),
        "job": job,
        "seconds": float(manifest.get("seconds", 0.0)),
        "manifest": json.dumps(manifest, default=str),
    }
    return local_rows(warehouse.spark, [row], warehouse.schema("runs"))


def _remember(warehouse: Warehouse, run_id: str, job: str, manifest: Manifest) -> None:
    known = warehouse.manifests[run_id]
    known.jobs[job] = json.loads(json.dumps(manifest, default=str))
    if warehouse.newest("runs") == known.version + 1:  # ours, and nobody else's
        known.version += 1
