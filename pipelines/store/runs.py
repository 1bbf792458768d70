"""Read and write the table `runs`, which holds one manifest for each job of each run.

A job that finds its own row has been done before, and changes nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors.explain import explained
from pipelines.schemas import DS, RUN_ID
from pipelines.store.frames import local_rows
from pipelines.store.leases import Run
from pipelines.store.manifests import ForgetManifest, Manifest, PublishManifest
from pipelines.store.predicates import equals
from pipelines.store.tables import CachedRow, Warehouse
from pipelines.store.write_errors import MissingTable, WriteConflict

M = TypeVar("M", bound=Manifest)


def find_manifest(warehouse: Warehouse, run_id: str, kind: type[M]) -> M | None:
    """Find the manifest of a finished job; return None if the run has not finished it.

    A manifest that this process has read is not read again, as a finished job's manifest never changes. The
    table is read again for an unknown row once another process has committed to `runs`.

    Args:
        warehouse: the warehouse that contains the table.
        run_id: the id of the run.
        kind: the class of the job's manifest.
    """
    key = (run_id, kind.job)
    found = warehouse.known.rows.get(key) or _read(warehouse).get(key)
    return kind.model_validate(json.loads(found.manifest)) if found else None


class FinishedJob(NamedTuple, Generic[M]):
    """A job that a run has finished."""

    run_id: str
    ds: str
    manifest: M


def find_manifests(warehouse: Warehouse, kind: type[M]) -> list[FinishedJob[M]]:
    """Find the manifests of one job in all runs, in no particular order."""
    return [
        FinishedJob(run_id, row.ds, kind.model_validate(json.loads(row.manifest)))
        for (run_id, job), row in list(_read(warehouse).items())
        if job == kind.job
    ]


def seconds_of_last(warehouse: Warehouse, run: Run) -> tuple[str, dict[str, float]]:
    """Return the last published run before this one, and the seconds that each of its jobs took.

    Args:
        warehouse: the warehouse that contains the table.
        run: a later run is not taken, nor this one.

    Returns:
        The id of the run, which is empty if there is none, and the seconds by job.
    """
    nights = [
        (done.ds, len(done.run_id), done.run_id)  # of two epochs of a night, the longer number is the later
        for done in find_manifests(warehouse, PublishManifest)
        if done.ds <= run.ds and done.run_id != run.run_id
    ]
    _, _, like = max(nights, default=("", 0, ""))
    rows = _read(warehouse)
    jobs = [job for run_id, job in rows if run_id == like]
    return like, {job: float(json.loads(rows[like, job].manifest).get("seconds", 0)) for job in jobs}


def first_readable(warehouse: Warehouse, table: str) -> int:
    """Return the oldest version of a table that forgetting persons has kept; see `operate/forget.py`."""
    purged = find_manifests(warehouse, ForgetManifest)
    return max((done.manifest.purged.get(table, 0) for done in purged), default=0)


def need_manifest(warehouse: Warehouse, run: Run, kind: type[M]) -> M:
    """Return the manifest of a job that must have run before.

    Args:
        warehouse: the warehouse that contains the table `runs`.
        run: the run that must have finished the job.
        kind: the class of the job's manifest.

    Raises:
        MissingTable: the run has not finished the job.
    """
    manifest = find_manifest(warehouse, run.run_id, kind)
    if manifest is None:
        raise MissingTable(
            f"night {run.ds}, run {run.key!r}: {kind.job} has not finished; run jobs/{kind.job}.py first "
            "with the same --ds and --run-key"
        )
    return manifest


def run_once(warehouse: Warehouse, run: Run, kind: type[M], work: Callable[[], M]) -> M:
    """Do a job unless this run has done it before, and record its manifest with the seconds that it took.

    Args:
        warehouse: the warehouse that contains the table `runs`.
        run: the run that the job belongs to.
        kind: the class of the job's manifest, which `work` returns.
        work: the function that does the job; it is not called if the job was done before.

    Returns:
        The manifest; `reused` is true if the job was done before.
    """
    done = find_manifest(warehouse, run.run_id, kind)
    if done is not None:
        return done.model_copy(update={"reused": True})
    started = time.monotonic()
    with explained():
        manifest = work()
    manifest = manifest.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
    if _add(warehouse, run.run_id, run.ds, manifest):
        return manifest
    # Another attempt recorded its row first, and that row is kept.
    return need_manifest(warehouse, run, kind).model_copy(update={"reused": True})


def record(warehouse: Warehouse, run_id: str, ds: str, manifest: Manifest) -> None:
    """Write or rewrite the row of a job in `runs`.

    Args:
        warehouse: the warehouse that contains the table.
        run_id: the id of the run.
        ds: the date (YYYY-MM-DD) of the night that the row is about.
        manifest: the manifest of the job; an equal one that is stored is not written again.
    """
    key = (run_id, manifest.job)
    if _find_text(warehouse, key) is None and _add(warehouse, run_id, ds, manifest):
        return
    row = _row(run_id, ds, manifest)
    if _find_text(warehouse, key) != row["manifest"]:
        warehouse.replace("runs", _frame(warehouse, row), equals(run_id=run_id, job=manifest.job))
        _remember(warehouse, row)


def _add(warehouse: Warehouse, run_id: str, ds: str, manifest: Manifest) -> bool:
    """Write the first row of a job; return False if another process has written one meanwhile."""
    tag, row = uuid.uuid4().hex, _row(run_id, ds, manifest)
    try:
        txn = (f"{run_id}-{manifest.job}", 1)
        warehouse.append("runs", _frame(warehouse, row), metadata=tag, txn=txn)
    except WriteConflict:
        if _find_text(warehouse, (run_id, manifest.job)) is None:
            raise
        return False
    if warehouse.find_commit("runs", tag) is None:  # Delta accepts the first writer and silently skips others
        return False
    _remember(warehouse, row)
    return True


def _row(run_id: str, ds: str, manifest: Manifest) -> dict[str, Any]:
    return {
        RUN_ID: run_id,
        DS: dt.date.fromisoformat(ds),
        "job": str(manifest.job),
        "seconds": manifest.seconds,
        "manifest": manifest.to_json(),
    }


def _frame(warehouse: Warehouse, row: dict[str, Any]) -> DataFrame:
    return local_rows(warehouse.spark, [row], warehouse.schema("runs"))


def _find_text(warehouse: Warehouse, key: tuple[str, str]) -> str | None:
    found = warehouse.known.rows.get(key) or _read(warehouse).get(key)
    return found.manifest if found else None


def _read(warehouse: Warehouse) -> dict[tuple[str, str], CachedRow]:
    """Return all rows of `runs`; they are cached, and read again only after a commit of another process."""
    known, newest = warehouse.known, warehouse.newest("runs")
    if known.version != newest:
        rows = warehouse.read("runs", newest).select(RUN_ID, "job", F.col(DS).cast("string"), "manifest")
        known.rows = {
            (row[RUN_ID], row["job"]): CachedRow(row[DS], row["manifest"]) for row in rows.collect()
        }
        known.version = newest
    return known.rows


def _remember(warehouse: Warehouse, row: dict[str, Any]) -> None:
    known = warehouse.known
    known.rows[row[RUN_ID], row["job"]] = CachedRow(str(row[DS]), row["manifest"])
    if warehouse.newest("runs") == known.version + 1:  # this process wrote the only new commit
        known.version += 1
