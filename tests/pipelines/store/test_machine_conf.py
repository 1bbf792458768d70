"""Spark's sizes on one machine follow from the machine and the data; what somebody has set always wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.settings.settings import Settings, load_settings
from pipelines.store.machine_conf import GIB, derive_conf, size_conf
from synthetic import shop


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings that say nothing about Spark."""
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    shop.write_drop(tmp_path / "raw", "events", "2024-03-01", shop.events())
    raw = shop.settings(tmp_path)
    raw.pop("spark")
    return Settings.model_validate(raw)


def with_master(own: Settings, master: str) -> Settings:
    return own.model_copy(update={"spark": own.spark.model_copy(update={"master": master})})


@pytest.mark.parametrize(
    ("cores", "memory", "data", "heap", "partitions"),
    [
        (2, 8, 0.0, 2.0, 2), (2, 4, 0.0, 1.6, 2), (16, 64, 1.0, 6.0, 64), (8, 16, 100.0, 6.4, 1000),
        (64, 512, 100.0, 32.0, 1000), (1, 1, 0.0, 1.0, 1),
    ],
)  # fmt: skip
def test_sizes_follow_from_machine_and_data(
    cores: int, memory: int, data: float, heap: float, partitions: int
) -> None:
    found = size_conf(cores, memory * GIB, int(data * GIB))
    assert int(found["spark.driver.memory"].removesuffix("m")) == int(heap * 1024)
    assert int(found["spark.sql.shuffle.partitions"]) == partitions
    assert ("spark.sql.adaptive.enabled" in found) == (partitions <= 2 * cores)


def test_only_a_session_of_this_machine_is_derived(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert derive_conf(own)["spark.ui.showConsoleProgress"] == "false"
    assert derive_conf(with_master(own, "local[3]"))["spark.sql.shuffle.partitions"] == "3"
    assert derive_conf(with_master(own, "local"))["spark.sql.shuffle.partitions"] == "1"
    assert derive_conf(with_master(own, "yarn")) == {}
    assert derive_conf(with_master(own, "local-cluster[2,1,1024]")) == {}
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")  # spark-submit has started this driver
    assert derive_conf(own) == {}


def test_the_defaults_of_spark_itself_win(own: Settings, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    path = tmp_path / "conf" / "spark-defaults.conf"
    path.write_text("# a comment\nspark.driver.memory 7g\nspark.ui.enabled=true\n\n")
    assert not {"spark.driver.memory", "spark.ui.enabled"} & set(derive_conf(own))
    path.write_text("spark.master spark://there:7077\n")
    assert derive_conf(own) == {}


def test_settings_without_spark_are_enough(own: Settings, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "warehouse: warehouse\ndrops: raw\nbundles: bundles\nmodels: [{name: lime, config: {}}]\n"
        "night: {model: lime}\n"
    )
    assert derive_conf(load_settings(path)).keys() == derive_conf(own).keys()
