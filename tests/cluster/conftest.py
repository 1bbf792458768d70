"""Fixtures of the cluster tests: the package is built from the tested code, and a module shares a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from pipelines.settings.settings import load_settings
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import ROOT, Cluster, standalone
from tests.conftest import copy_tables


@pytest.fixture(scope="session")
def package(request: pytest.FixtureRequest, testrun_uid: str) -> None:
    """Build the package, as `make package` does, once for all processes of a test run."""
    assert request.config.cache
    cache = request.config.cache.mkdir("package")
    with FileLock(cache / "lock"):  # the other process must not replace the package under a running job
        built = cache / "run"
        if not built.exists() or built.read_text() != testrun_uid:
            subprocess.run(["bash", str(ROOT / "tools" / "package.sh")], check=True)
            built.write_text(testrun_uid)


@pytest.fixture(scope="module")
def cluster(package: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start one master and two workers of one core."""
    with standalone(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def fresh(trained: Warehouse, tmp_path: Path) -> Warehouse:
    """Return the shop with its log and bundles, in a warehouse in which no night has run."""
    settings = shop.settings(tmp_path) | {
        "bundles": trained.settings.bundles,
        "drops": trained.settings.drops,
    }
    del settings["spark"]["master"]
    settings["spark"]["conf"]["spark.sql.shuffle.partitions"] = "2"
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    copy_tables(Path(trained.settings.warehouse), tmp_path / "warehouse")
    return Warehouse(trained.spark, load_settings(tmp_path / "settings.yaml"))
