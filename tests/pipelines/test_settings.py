"""Settings: one file, no unknown keys, errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

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
        ({"evaluate_policies": [{"name": "a", "exclude_seen": 0}]}, r"must be at least 1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path, **changes))


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
