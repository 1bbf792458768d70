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

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors.explain import explained
from pipelines.store.leases import Run
from pipelines.store.predicates import equals
from pipelines.store.schemas import DS, RUN_ID
from pipelines.store.tables import MissingTable, Recorded, Warehouse, WriteConflict, local_rows

Manifest = dict[str, Any]


def find_manifest(warehouse: Warehouse, run_id: str, job: str) -> Manifest | None:
    """The manifest of a finished job, or None.

    What this process has seen stands, as a finished job's manifest never changes; what it has
    not seen is looked for again when `runs` has a commit that this process did not write.
    """
    key = (run_id, job)
    found = warehouse.known.rows.get(key) or _read(warehouse).get(key)
    return json.loads(found.manifest) if found else None


class FinishedJob(NamedTuple):
    """A job that a run finished."""

    run_id: str
    ds: str
    job: str
    manifest: Manifest


def find_manifests(warehouse: Warehouse, *jobs: str) -> list[FinishedJob]:
    """What all runs finished of these jobs, in no order."""
    return [
        FinishedJob(run_id, row.ds, job, json.loads(row.manifest))
        for (run_id, job), row in list(_read(warehouse).items())
        if job in jobs
    ]


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


def run_once(warehouse: Warehouse, run: Run, job: str, work: Callable[[], Manifest]) -> Manifest:
    """Do `work` unless this run has done it, and record its manifest with the seconds it took."""
    done = find_manifest(warehouse, run.run_id, job)
    if done is not None:
        return {**done, "reused": True}
    started = time.monotonic()
    with explained():
        manifest = work()
    manifest["seconds"] = round(time.monotonic() - started, 3)
    if _add(warehouse, run.run_id, run.ds, job, manifest):
        return manifest
    return {**need_manifest(warehouse, run, job), "reused": True}  # another attempt was faster: its stands


def record(warehouse: Warehouse, run_id: str, ds: str, job: str, manifest: Manifest) -> None:
    """Write or rewrite one row of `runs`."""
    if find_manifest(warehouse, run_id, job) is None and _add(warehouse, run_id, ds, job, manifest):
        return
    row = _row(run_id, ds, job, manifest)
    if find_manifest(warehouse, run_id, job) != json.loads(row["manifest"]):
        warehouse.replace("runs", _frame(warehouse, row), equals(run_id=run_id, job=job))
        _remember(warehouse, row)


def _add(warehouse: Warehouse, run_id: str, ds: str, job: str, manifest: Manifest) -> bool:
    """Write the first row of a job; False when another process has written one meanwhile."""
    tag, row = uuid.uuid4().hex, _row(run_id, ds, job, manifest)
    try:
        warehouse.append("runs", _frame(warehouse, row), metadata=tag, txn=(f"{run_id}-{job}", 1))
    except WriteConflict:
        if find_manifest(warehouse, run_id, job) is None:
            raise
        return False
    if warehouse.find_commit("runs", tag) is None:  # Delta lets the first one in, and says nothing
        return False
    _remember(warehouse, row)
    return True


def _row(run_id: str, ds: str, job: str, manifest: Manifest) -> dict[str, Any]:
    return {
        RUN_ID: run_id,
        DS: dt.date.fromisoformat(ds),
        "job": job,
        "seconds": float(manifest.get("seconds", 0.0)),
        "manifest": json.dumps(manifest, default=str),
    }


def _frame(warehouse: Warehouse, row: dict[str, Any]) -> DataFrame:
    return local_rows(warehouse.spark, [row], warehouse.schema("runs"))


def _read(warehouse: Warehouse) -> dict[tuple[str, str], Recorded]:
    """All of `runs`, read again only after a commit of another process: a night asks for it at every step."""
    known, newest = warehouse.known, warehouse.newest("runs")
    if known.version != newest:
        rows = warehouse.read("runs", newest).select(RUN_ID, "job", F.col(DS).cast("string"), "manifest")
        known.rows = {(run_id, job): Recorded(ds, manifest) for run_id, job, ds, manifest in rows.collect()}
        known.version = newest
    return known.rows


def _remember(warehouse: Warehouse, row: dict[str, Any]) -> None:
    known = warehouse.known
    known.rows[row[RUN_ID], row["job"]] = Recorded(str(row[DS]), row["manifest"])
    if warehouse.newest("runs") == known.version + 1:  # ours, and nobody else's
        known.version += 1
