"""The whole night on a cluster: the lists that one process gives, from the package alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.leases import Run
from pipelines.night import STEPS
from pipelines.tables import Warehouse
from tests import shop
from tests.cluster.standalone import ROOT, Cluster
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
