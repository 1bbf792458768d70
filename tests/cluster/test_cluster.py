"""The whole night on a cluster: the lists that one process gives, from the package alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.leases import Run
from pipelines.night import STEPS
from pipelines.parcels import CHUNK
from pipelines.tables import Warehouse
from tests import shop
from tests.cluster.standalone import ROOT, Cluster, standalone, wait_until
from tests.pipelines.test_night import lists_of

pytestmark = pytest.mark.cluster
NIGHT_STEPS = [name for name in STEPS if name != "ingest_events"]


def test_the_cluster_gives_the_lists_of_one_process(
    cluster: Cluster, published: tuple[Warehouse, Run], fresh: Warehouse, tmp_path: Path
) -> None:
    config = str(tmp_path / "settings.yaml")
    night = ("--config", config, "--ds", shop.NIGHT, "--run-key", "cluster", "--steps", *NIGHT_STEPS)
    job = cluster.submit(str(ROOT / "jobs" / "run_steps.py"), *night)
    out, error = job.communicate(timeout=300)
    assert job.returncode == 0, error[-3000:] + out[-1000:]
    assert lists_of(fresh) == lists_of(published[0])


def test_a_host_holds_the_bank_once_however_many_workers_map_it(package: None, tmp_path: Path) -> None:
    bank, workers = 160 << 20, 2
    with standalone(tmp_path, workers=1, cores=workers, memory="2g") as cluster:
        script = str(Path(__file__).parent / "share_parcel.py")
        one_core = {"spark.executor.cores": "1", "spark.executor.instances": str(workers)}
        job = cluster.submit(script, str(bank), str(workers), conf=one_core)
        out, error = job.communicate(timeout=240)
        assert job.returncode == 0, error[-3000:]
        held = [
            json.loads(line.removeprefix("worker "))
            for line in out.splitlines()
            if line.startswith("worker ")
        ]
        assert len({row["executor"] for row in held}) == workers  # a JVM and a daemon each
        assert len({row["inode"] for row in held}) == 1
        assert len({row["total"] for row in held}) == 1
        assert sum(row["share"] for row in held) <= 1.1 * bank
        further, landed = sorted(row["growth"] for row in held)
        assert further < 0.1 * bank
        assert landed < 0.1 * bank + CHUNK  # it unpacked the bank, a chunk at a time
        work = cluster.folder / "worker-0" / "work"
        assert all(Path(row["code"]).is_relative_to(work) for row in held)  # the package, not this folder
        gone = lambda: not list((cluster.folder / "worker-0" / "local").rglob("lime-*"))  # noqa: E731
        wait_until(gone, "Spark has not removed the bank after the application")
