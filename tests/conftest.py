"""One Spark session for the whole run, and a shop that has been through one night.

The session is real, and so are Delta, the files and the trained model; they are small.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pyspark.sql import SparkSession

if not torch.cuda.is_available():  # read when a kernel is defined, so before anything imports one
    os.environ.setdefault("TRITON_INTERPRET", "1")

from pipelines.leases import Run, acquire_lease
from pipelines.night import STEPS, ingest_days
from pipelines.session import open_session
from pipelines.settings import Settings, load_settings
from pipelines.tables import Warehouse
from pipelines.train import train_models
from tests import shop


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    root = tmp_path_factory.mktemp("session")
    session = open_session(load_settings(shop.write_settings(root)), "tests")
    yield session
    session.stop()


def open_shop(spark: SparkSession, root: Path, **night: object) -> Warehouse:
    """An empty warehouse with the shop's settings under `root`."""
    return Warehouse(spark, load_settings(shop.write_settings(root, **night)))


@pytest.fixture
def empty_shop(spark: SparkSession, tmp_path: Path) -> Warehouse:
    """Settings and folders, nothing ingested."""
    return open_shop(spark, tmp_path)


@pytest.fixture(scope="session")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The shop with its log ingested and both models trained; read only."""
    root = tmp_path_factory.mktemp("shop")
    shop.write_shop(root / "raw")
    warehouse = open_shop(spark, root)
    ingest_days(warehouse, shop.FIRST, shop.LAST)
    train_models(warehouse, shop.NIGHT, ["mha", "xor"])
    return warehouse


@pytest.fixture(scope="session")
def published(trained: Warehouse) -> tuple[Warehouse, Run]:
    """The shop after one whole night with LIME-MHA; read only."""
    run = acquire_lease(trained, shop.NIGHT, "first")
    for name, step in STEPS.items():
        if name != "ingest_events":
            step(trained, run)
    return trained, run


@pytest.fixture(scope="session")
def shop_settings(trained: Warehouse) -> Settings:
    return trained.settings
