"""Settings: one file without unknown keys, and errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.settings.settings import load_settings
from synthetic import shop
from tests.pipelines.settings.files import write

ROOT = Path(__file__).resolve().parents[3]


def test_the_demo_settings_are_valid_and_frozen() -> None:
    settings = load_settings(ROOT / "conf" / "local.yaml")
    assert settings.warehouse == str(ROOT / ".demo" / "warehouse")
    with pytest.raises(ValueError, match="frozen"):
        settings.warehouse = "elsewhere"  # type: ignore[misc]


def test_the_cluster_settings_override_those_of_the_demo(tmp_path: Path) -> None:
    local, cluster = (
        yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text()) for name in ("local", "cluster")
    )
    for section, keys in cluster.items():
        local[section] = {**local[section], **keys} if section == "night" else keys
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(local))
    settings = load_settings(tmp_path / "s.yaml")
    assert settings.warehouse == "s3a://lake/lime/warehouse"
    assert settings.spark.master is None  # spark-submit decides
    assert settings.spark.secrets == {"fs.s3a.access.key": "LAKE_KEY", "fs.s3a.secret.key": "LAKE_SECRET"}
    assert settings.night.model in {model.name for model in settings.models}
    assert settings.night.policy.name == "all"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warehose": "x"}, r"warehose: unknown key; nearest known key: warehouse"),
        ({"night": {"model": "mha", "certificate_user": 3}}, r"night.certificate_user: .*certificate_users"),
        ({"night": {"model": "mha", "top_k": 5}}, r"night.top_k: unknown key; known keys here: backend, bu"),
        (
            {"audits": {"overrides": [{"nihgt": "2017-12-04", "check": "psi", "reason": "a new catalogue"}]}},
            r"audits.overrides.0.nihgt: unknown key; nearest known key: night",
        ),
        (
            {"export": {"redis": {"url": "redis://h", "ttl_day": 3}}},
            r"ttl_day: .*nearest known key: ttl_days",
        ),
        (
            {"report": {"item_name": ["nmae"]}},
            r"report.item_name names nmae, which ingest.items.columns does not have; ",
        ),
        ({"night": {"model": "mah"}}, r"night.model: no model 'mah' in models.*; nearest model: mha"),
        ({"night": {"model": "mha", "k": True}}, r"night.k: .*valid integer.*\(got 'true'\)"),
        ({"night": {"model": "mha", "max_damaged_share": True}}, r"max_damaged_share: .*valid number"),
        ({"models": [{"name": "mha", "config": {"links": True}}]}, r"config.links: .*valid integer"),
        (
            {"models": [{"name": "mha", "config": {}, "train": {"dropout": False}}]},
            r"train.dropout: .*valid nu",
        ),
        ({"audits": {"max_psi": float("inf")}}, r"audits.max_psi: .*finite number"),
        (
            {"audits": {"overrides": [{"night": 20171204, "check": "psi", "reason": "a new catalogue"}]}},
            r"overrides.0.night: a date is written as 2017-12-04; .*\(got 20171204\)",
        ),
        ({"models": [{"name": "../mha", "config": {}}]}, r"models.0.name: '../mha' is not a name: 1 to 64"),
        (
            {"models": [{"name": "champions", "config": {}}]},
            r"models.0.name: 'champions' is the name of a table",
        ),
        ({"evaluate_policies": [{"name": "it's"}]}, r"evaluate_policies.0.name: \"it's\" is not a name"),
        ({"evaluate_policies": [{"name": "new"}, {"name": "New"}]}, r"evaluate_policies have the same name"),
        ({"evaluate_policies": []}, r"evaluate_policies has 0 policies; it takes 1 to 63"),
        ({"spark": {"master": "spork"}}, r"spark.master: Spark knows no such master; use local"),
        (
            {"spark": {"conf": {"spark.driver.memory": "much"}}},
            r"memory is 'much', which is not a size",
        ),
        ({"warehouse": ""}, r"warehouse: .*at least 1 character"),
        ({"warehouse": "a\0b"}, r"warehouse: the path holds the character U\+0000"),
        ({"drops": "a\nb"}, r"drops: the path holds the character U\+000A"),
        ({"bundles": "a\u200bb"}, r"bundles: the path holds the character U\+200B"),
        ({"export": {"parquet": {"path": "a\0b"}}}, r"export.parquet.path: the path holds the character"),
        ({"ingest": {"items": {"columns": {"ITEM_ID": "string"}}}}, r"items.columns has 'ITEM_ID'"),
        ({"ingest": {"users": {"columns": {"user_id": "string"}}}}, r"users.columns has 'user_id'"),
        ({"night": {"model": "mha", "k": 0}}, r"night.k: .*greater than or equal to 1 \(got 0\)"),
        ({"ids": {"user_id": "int"}}, r"ids.user_id: .*'long' or 'string'.*'int'"),
        ({"models": [{"name": "m", "config": {"width": 10, "heads": 4}}]}, r"width 10 is not a multiple of"),
        (
            {"models": [{"name": "m", "config": {"widht": 8}}]},
            r"widht: unknown key; nearest known key: width",
        ),
        (
            {"models": [{"name": "m", "config": {"labelled": True}}]},
            r"labelled: true needs the section labels",
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
            r"model m reads the column knd, which ingest.items.columns does not have; nearest column: kind",
        ),
        (
            {"models": [{"name": "m", "config": {"item_columns": [{"name": "kind", "kind": "number"}]}}]},
            r"reads kind as a number, and ingest.items.columns says string; a number needs double or long",
        ),
        ({"models": [{"name": "m", "config": {}}] * 2}, r"models have the same name: \['m'\]"),
        ({"models": [{"name": "m", "config": {}, "labels": {"dropout": 1}}]}, r"labels.dropout is 1.0"),
        ({"ingest": {"events": {"key": ["a"], "identical": "each"}}}, r"two rows of one key are one event"),
        (
            {"ingest": {"events": {"user": "a"}}},
            r"ingest.events.user: unknown key; nearest known key: user_id",
        ),
        ({"ingest": {"csv": {"delimiter": "::"}}}, r"several characters, which needs quote: null"),
        ({"ingest": {"items": {"columns": {"a": "long", "A": "long"}}}}, r"differ only in the case"),
        ({"evaluate_policies": [{"name": "a", "exclude_seen": 0}]}, r"must be at least 1"),
        (
            {"spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": "hush"}}},
            r"fs.s3a.secret.key looks like a secret.* in spark.secrets, as fs.s3a.secret.key: NAME$",
        ),
    ],
)
def test_each_mistake_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path, **changes))


def test_the_key_decides_whether_yes_and_no_are_text_or_truth_values(tmp_path: Path) -> None:
    raw = yaml.safe_dump({**shop.settings(tmp_path), "audits": {}})
    path = tmp_path / "s.yaml"
    path.write_text(raw.replace("audits: {}", "audits: {}\nupkeep: {keep_days: yes}"))
    with pytest.raises(SettingsError, match=r"upkeep.keep_days: .*valid integer.*\(got 'yes'\)"):
        load_settings(path)
    path.write_text(raw.replace("audits: {}", "promotion: {margin: on}"))
    with pytest.raises(SettingsError, match=r"promotion.margin: .*valid number.*\(got 'on'\)"):
        load_settings(path)
    for word, value in (("no", False), ("true", True)):
        path.write_text(raw.replace("  units_per_commit: 4", f"  units_per_commit: 4\n  reuse: {word}"))
        assert load_settings(path).night.reuse is value
    path.write_text(raw.replace("default_event_type: purchase", "default_event_type: off"))
    assert load_settings(path).ingest.default_event_type == "off"


@pytest.mark.parametrize("seen", [True, False, "yes", 0, -1, 1.5, "every", None, [7]])
def test_exclude_seen_is_a_word_or_a_number_of_days(seen: Any) -> None:
    with pytest.raises(ValidationError, match="exclude_seen is none, all, or a number of days"):
        Policy(exclude_seen=seen)
    assert [Policy(exclude_seen=good).exclude_seen for good in ("all", "none", 30)] == ["all", "none", 30]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"s.yaml is not YAML: line 1, column 5: "),
        ("night: {}\nnight: {}", r"is not YAML: line 2, column 1: the key night is given twice"),
        ("a: 2017-13-45", r"is not YAML: month must be in 1..12"),
        (
            "a: !!python/object:os.system x",
            r"is not YAML: line 1, column 4: could not determine a constructor",
        ),
        ("[" * 5000, r"is not YAML: it is nested too deeply"),
        ("", r"s.yaml holds no settings: it needs keys and values"),
        ("- a", r"s.yaml holds no settings"),
        ("warehouse: 5", r"warehouse: Input should be a valid string; put it in quotes \(got 5\)"),
        (b"a: \xff", r"s.yaml is not UTF-8 text \(byte 3\); save it as UTF-8"),
    ],
)
def test_a_file_without_settings_is_refused_in_one_sentence(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=message):
        load_settings(path)
    with pytest.raises(SettingsError, match=r"the settings file .* can't be read: Is a directory"):
        load_settings(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no settings file at .*lime init DROPS"):
        load_settings(tmp_path / "none.yaml")


def test_paths_keep_their_scheme_and_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, warehouse="s3a://bucket/lime", drops="raw"))
    assert settings.warehouse == "s3a://bucket/lime"
    assert settings.drops == str(tmp_path / "raw")
