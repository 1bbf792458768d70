"""The shared fixtures: one Spark session for the whole run, and a small shop with trained models.

Nothing is mocked: the session, Delta, the files and the trained models are real, but small.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock
from pyspark.sql import SparkSession

if (
    not torch.cuda.is_available()
):  # Triton reads this when a kernel is defined, so it is set before any import of one
    os.environ.setdefault("TRITON_INTERPRET", "1")

from lime_model.digests import source_digest
from pipelines.ingest.load_days import ingest_days
from pipelines.learn.train import train_models
from pipelines.models.champions import need_champion
from pipelines.night import STEPS
from pipelines.settings.settings import Settings, load_settings
from pipelines.store.leases import Run, acquire_lease
from pipelines.store.session import open_session
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.nights import removing

ROOT = Path(__file__).resolve().parent.parent

# Tests under these marks run whole nights or submit jobs.
NEED_JVM = ("airflow", "cluster", "faults", "nights", "operate")

hypothesis.settings.register_profile("shared", deadline=None)  # a slow example on a busy machine is not a bug
hypothesis.settings.load_profile("shared")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a JVM: `spark` is among their fixtures, or they carry one of `NEED_JVM`."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "spark" in fixtures or any(item.get_closest_marker(name) for name in NEED_JVM):
            item.add_marker(pytest.mark.jvm)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    root = tmp_path_factory.mktemp("session")
    settings = load_settings(shop.write_settings(root))
    # One JVM serves all tests and runs long enough for both JIT compilers, whatever the environment sets.
    settings.spark.conf["spark.driver.extraJavaOptions"] = "-XX:TieredStopAtLevel=4 -Xmn512m"
    session = open_session(settings, "tests")
    yield session
    session.stop()


@pytest.fixture(scope="module", autouse=True)
def forget_tables() -> Iterator[None]:
    """Clear Delta's cache, which keeps snapshots and plans of every opened table for an hour."""
    yield
    if session := SparkSession.getActiveSession():
        session._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()


def open_shop(spark: SparkSession, root: Path, **night: object) -> Warehouse:
    """Open a warehouse with the shop's settings under `root`."""
    root.mkdir(parents=True, exist_ok=True)
    return Warehouse(spark, load_settings(shop.write_settings(root, **night)))


@pytest.fixture
def empty_shop(spark: SparkSession, tmp_path: Path) -> Warehouse:
    """Return a shop with settings and folders, in which nothing is ingested."""
    return open_shop(spark, tmp_path)


@pytest.fixture(scope="module")
def in_place() -> Iterator[None]:
    """Let a shop of any size change rows of states in place, as large shops do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.build.write_states.LEAST_PATCHED", 0)
        yield


@pytest.fixture(scope="session")
def ready(spark: SparkSession, request: pytest.FixtureRequest) -> Warehouse:
    """Return the shop with its log ingested and both models trained; tests only read it.

    It is kept in pytest's cache, for all processes and runs of the same code.
    """
    assert request.config.cache
    cache = request.config.cache.mkdir("shop")
    code = sorted(path for name in ("lime_model", "pipelines") for path in (ROOT / name).rglob("*.py"))
    root = cache / source_digest([*code, Path(shop.__file__), ROOT / "requirements.lock"])
    with FileLock(cache / "lock"):
        done = root / "done"
        if not done.exists():
            for old in cache.glob("*/"):
                shutil.rmtree(old)
        warehouse = open_shop(spark, root)
        if not done.exists():
            shop.write_shop(root / "raw")
            ingest_days(warehouse, shop.FIRST, shop.LAST)
            train_models(warehouse, shop.NIGHT, ["mha", "xor"])
            done.touch()
    return warehouse


@pytest.fixture(scope="session")
def trained(ready: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return a copy of `ready` for this process, in which each test runs nights under its own keys."""
    return copy_shop(ready, tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def published(trained: Warehouse) -> tuple[Warehouse, Run]:
    """Return the shop after one whole night with LIME-MHA; tests only read it."""
    run = acquire_lease(trained, shop.NIGHT, "first")
    for name, step in STEPS.items():
        if name != "ingest_events":
            step(trained, run)
    return trained, run


def copy_tables(source: Path, target: Path, names: tuple[str, ...] = ("events", "items", "users")) -> None:
    """Copy Delta tables; they hold relative paths, so a copy of the folder is a copy of the table."""
    for name in names:
        shutil.copytree(source / name, target / name)


def copy_log(source: Warehouse, root: Path) -> Warehouse:
    """Copy the ingested tables and the bundles of a shop to another root, so that its nights are private."""
    copy_tables(Path(source.settings.warehouse), root / "warehouse")
    shutil.copytree(source.settings.bundles, root / "bundles")
    return open_shop(source.spark, root)


def copy_shop(source: Warehouse, root: Path, **night: object) -> Warehouse:
    """Copy tables, bundles and drops of a shop to another root, so that changes to them are private."""
    shutil.copytree(source.settings.warehouse, root / "warehouse")
    shutil.copytree(source.settings.bundles, root / "bundles")
    shutil.copytree(source.settings.drops, root / "raw")
    return open_shop(source.spark, root, **night)


def bundle_folder(warehouse: Warehouse, model: str) -> Path:
    """Return the folder of the champion of the shop's night."""
    version = need_champion(warehouse, model, shop.NIGHT)
    return Path(warehouse.settings.bundles.removeprefix("file:")) / model / version


@pytest.fixture(scope="session")
def shop_settings(trained: Warehouse) -> Settings:
    return trained.settings


@pytest.fixture
def shop_of_its_own(trained: Warehouse, tmp_path: Path) -> Warehouse:
    return removing(copy_log(trained, tmp_path))
