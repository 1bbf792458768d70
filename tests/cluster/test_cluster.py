"""A complete night on a cluster uses only the package and gives the same lists as one process."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.night import STEPS
from pipelines.score.broadcast_files import CHUNK_BYTES
from pipelines.store.leases import Run
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import ROOT, Cluster, standalone, wait_until
from tests.nights import lists_of

pytestmark = pytest.mark.cluster


def test_the_cluster_gives_the_lists_of_one_process(
    cluster: Cluster, published: tuple[Warehouse, Run], fresh: Warehouse, tmp_path: Path
) -> None:
    night = ("--config", str(tmp_path / "settings.yaml"), "--ds", shop.NIGHT, "--run-key", "cluster")
    plan = submit(cluster, "plan_night", *night, "--price-per-hour", "0.05")["plan_night"]
    assert (plan["users"], plan["pairs"]) == (shop.USERS, shop.USERS * (shop.ITEMS + 1))
    assert plan["tasks"] == 2  # the cores of both workers
    assert plan["predicted_cost"] > 0
    reports = submit(cluster, "run_steps", *night, "--steps", *STEPS)
    assert reports["score_candidates"]["forecast"]["predicted_seconds"] == plan["predicted_seconds"]
    assert reports["ingest_events"]["events"]["inserted"] == 0  # the day was loaded before
    assert lists_of(fresh) == lists_of(published[0])


def submit(cluster: Cluster, script: str, *options: str) -> dict[str, Any]:
    """Run a job on the cluster to its end; return the reports of its steps."""
    job = cluster.submit(str(ROOT / "jobs" / f"{script}.py"), *options)
    out = job.finish()
    return {step: json.loads(report) for step, report in re.findall(r'^(\w+) (\{".*)$', out, re.MULTILINE)}


def test_a_host_holds_the_bank_once_however_many_workers_map_it(package: None, tmp_path: Path) -> None:
    bank, workers = 160 << 20, 2
    with standalone(tmp_path, workers=1, cores=workers, memory="2g") as cluster:
        script = str(Path(__file__).parent / "share_parcel.py")
        one_core = {
            "spark.executor.cores": "1",
            "spark.executor.instances": str(workers),
            "spark.python.daemon.module": "pipelines.worker_daemon",
        }
        job = cluster.submit(script, str(bank), str(workers), conf=one_core)
        out = job.finish()
        held = [
            json.loads(line.removeprefix("worker "))
            for line in out.splitlines()
            if line.startswith("worker ")
        ]
        assert len({row["executor"] for row in held}) == workers  # each worker has a JVM and a daemon
        assert len({row["inode"] for row in held}) == 1
        assert len({row["total"] for row in held}) == 1
        assert sum(row["share"] for row in held) <= 1.1 * bank
        further, unpacking = sorted(row["growth"] for row in held)
        assert further < 0.1 * bank
        assert unpacking < 0.1 * bank + CHUNK_BYTES  # this worker unpacked the bank, one chunk at a time
        work = cluster.folder / "worker-0" / "work"
        for row in held:  # all modules of the UDFs come from the package, not from this folder
            assert len(row["code"]) > 20
            assert all(Path(file).is_relative_to(work) for file in row["code"])
        gone = lambda: not list((cluster.folder / "worker-0" / "local").rglob("lime-*"))  # noqa: E731
        wait_until(gone, "Spark has not removed the bank after the application")
