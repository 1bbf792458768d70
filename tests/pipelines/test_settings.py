"""Settings: one file, no unknown keys, errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from pipelines.session import open_session
from pipelines.settings import SettingsError, load_settings
from tests import shop

ROOT = Path(__file__).resolve().parent.parent.parent


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({**shop.settings(tmp_path), **changes}))
    return path


def test_the_demo_settings_are_valid_and_frozen() -> None:
    settings = load_settings(ROOT / "conf" / "local.yaml")
    assert settings.warehouse == str(ROOT / ".demo" / "warehouse")
    with pytest.raises(ValueError, match="frozen"):
        settings.warehouse = "elsewhere"  # type: ignore[misc]


def test_the_cluster_settings_go_over_the_demos(tmp_path: Path) -> None:
    local, cluster = (
        yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text()) for name in ("local", "cluster")
    )
    for section, keys in cluster.items():
        local[section] = {**local[section], **keys} if section == "night" else keys
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(local))
    settings = load_settings(tmp_path / "s.yaml")
    assert settings.warehouse == "s3a://lake/lime/warehouse"
    assert settings.spark.master is None  # spark-submit's
    assert settings.spark.secrets == {"fs.s3a.access.key": "LAKE_KEY", "fs.s3a.secret.key": "LAKE_SECRET"}
    assert settings.night.model in {model.name for model in settings.models}
    assert settings.night.policy.name == "all"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warehose": "x"}, r"warehose: unknown key; nearest known key: warehouse"),
        ({"night": {"model": "mha", "certificate_user": 3}}, r"night.certificate_user: .*certificate_users"),
        ({"night": {"model": "mha", "k": 0}}, r"night.k: .*greater than or equal to 1 \(got 0\)"),
        ({"ids": {"user_id": "int"}}, r"ids.user_id: .*'long' or 'string'.*'int'"),
        ({"models": [{"name": "m", "config": {"width": 10, "heads": 4}}]}, r"width 10 is not a multiple of"),
        (
            {"models": [{"name": "m", "config": {"widht": 8}}]},
            r"widht: unknown key; nearest known key: width",
        ),
        (
            {"models": [{"name": "m", "config": {"labelled": True}}]},
            r"labelled: true wants labels, how to learn them",
        ),
        (
            {"models": [{"name": "m", "config": {"item_columns": [{"name": "tags", "kind": "lists"}]}}]},
            r"item_columns.*'category', 'hash', 'number', 'list' or 'vector'",
        ),
        (
            {"models": [{"name": "m", "config": {"item_columns": [{"name": "sku", "kind": "hash"}]}}]},
            r"column sku: size is 0; a hash wants at least 1",
        ),
        (
            {"models": [{"name": "m", "config": {"user_columns": ["age", "age"]}}]},
            r"name \['age'\] more than once",
        ),
        ({"models": [{"name": "m", "config": {"without": ["head"]}}]}, r"without.*'dot', 'bias' or 'memory'"),
        (
            {"models": [{"name": "m", "config": {"item_columns": ["knd"]}}]},
            r"model m reads the column knd, which ingest.items.columns does not have; nearest: kind",
        ),
        (
            {"models": [{"name": "m", "config": {"item_columns": [{"name": "kind", "kind": "number"}]}}]},
            r"reads kind as a number, and ingest.items.columns says string; a number wants double or long",
        ),
        ({"models": [{"name": "m", "config": {}}] * 2}, r"models have the same name: \['m'\]"),
        ({"models": [{"name": "m", "config": {}, "labels": {"dropout": 1}}]}, r"labels.dropout is 1.0"),
        ({"evaluate_policies": [{"name": "a", "exclude_seen": 0}]}, r"must be at least 1"),
        (
            {"spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": "hush"}}},
            r"fs.s3a.secret.key looks like a secret.* in spark.secrets, as fs.s3a.secret.key: NAME$",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path, **changes))


def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path, spark={"conf": {"spark.my.password": "hush"}}))
    assert "hush" not in str(error.value)


def test_secrets_come_from_the_environment_into_hadoop_and_nowhere_else(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(write(tmp_path, spark={"secrets": {"fs.s3a.secret.key": "LAKE_SECRET"}}))
    monkeypatch.delenv("LAKE_SECRET", raising=False)
    with pytest.raises(
        SettingsError,
        match=r"fs.s3a.secret.key: the environment variable that it names is not set",
    ):
        open_session(settings, "tests")
    monkeypatch.setenv("LAKE_SECRET", "hush")
    session = open_session(settings, "tests")
    assert session.sparkContext._jsc.hadoopConfiguration().get("fs.s3a.secret.key") == "hush"
    assert "hush" not in str(session.sparkContext.getConf().getAll())
    session.sparkContext._jsc.hadoopConfiguration().unset("fs.s3a.secret.key")


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no settings file at .*conf/local.yaml"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match="is not YAML"):
        load_settings(tmp_path / "bad.yaml")


def test_paths_keep_their_scheme_and_relative_ones_count_from_the_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, warehouse="s3a://bucket/lime", drops="raw"))
    assert settings.warehouse == "s3a://bucket/lime"
    assert settings.drops == str(tmp_path / "raw")
