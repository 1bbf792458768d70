"""Manifests: what each job of a run read, wrote, counted and took, one row per (run, job).

A job that finds its own row has been done before and changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.columns import RUN_ID
from pipelines.leases import Run
from pipelines.tables import MissingTable, Warehouse

Manifest = dict[str, Any]


def find_manifest(warehouse: Warehouse, run_id: str, job: str) -> Manifest | None:
    """The manifest of a finished job, or None."""
    rows = warehouse.read("runs").where((F.col(RUN_ID) == run_id) & (F.col("job") == job))
    found = rows.select("manifest").collect()
    return json.loads(found[0][0]) if found else None


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
    manifest = work()
    manifest["seconds"] = round(time.monotonic() - started, 3)
    warehouse.append("runs", _row(warehouse, run.run_id, run.ds, job, manifest))
    return manifest


def record(warehouse: Warehouse, run_id: str, ds: str, job: str, manifest: Manifest) -> None:
    """Write or rewrite one row of `runs`."""
    where = f"run_id = '{run_id}' AND job = '{job}'"
    warehouse.replace("runs", _row(warehouse, run_id, ds, job, manifest), where)


def _row(warehouse: Warehouse, run_id: str, ds: str, job: str, manifest: Manifest) -> DataFrame:
    text = json.dumps(manifest, default=str)
    return warehouse.spark.createDataFrame(
        [(run_id, ds, job, float(manifest.get("seconds", 0.0)), text)],
        "run_id string, ds string, job string, seconds double, manifest string",
    )
