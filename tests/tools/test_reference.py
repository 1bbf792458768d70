"""The pages and the schema are what the code says, and describe every key and every error."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import jobs
import pipelines
from lime_model.config import ModelConfig
from lime_model.errors import LimeError
from lime_model.recipe import LabelTraining, TrainConfig
from pipelines.settings.names import check_run_key
from pipelines.settings.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("conf/settings.schema.json", "docs/configure.md", "docs/errors.md")
SCHEMA: dict[str, Any] = json.loads((ROOT / FILES[0]).read_text())
SETTINGS = sorted({*(ROOT / "conf").glob("*.yaml")} - {ROOT / "conf" / "tenants.yaml"})  # options of the DAGs
ERRORS = (ROOT / FILES[2]).read_text()
LIMITS = ("at least 1", "above 0", "from 0 to below 1")
# The limit of these is another key.
RELATED = {"width": "a multiple of `heads`", "first_cut_days": "at least `horizon_days`"}


def reference(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "reference.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_committed_files_are_what_the_code_describes_and_an_old_file_is_named(tmp_path: Path) -> None:
    assert reference(str(tmp_path)).returncode == 0
    for name in FILES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"run `make docs` for {name}"
    schema, page = tmp_path / FILES[0], tmp_path / FILES[1]
    page.write_text(page.read_text().replace("| `100` |", "| `99` |"))
    schema.unlink()
    found = reference(str(tmp_path), "--check")
    assert found.returncode == 1
    assert [line.split()[1] for line in found.stderr.splitlines()] == [str(schema), str(page)]


def keys() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of every section, as `Section.key`, and its part of the schema."""
    for section, node in {"Settings": SCHEMA, **SCHEMA["$defs"]}.items():
        for name, key in node["properties"].items():
            yield f"{section}.{name}", key


def test_every_key_has_a_description_and_a_row() -> None:
    page = (ROOT / FILES[1]).read_text()
    for name, key in keys():
        assert key["description"].endswith("."), name
        assert f"{name.partition('.')[2]}` |" in page, name


def limit(cls: type, name: str) -> str:
    """Find the limit of a number by what the class accepts."""

    def accepts(value: float) -> bool:
        try:
            cls(**{name: value})
        except ValueError:
            return False
        return True

    if accepts(0):
        return "from 0 to below 1" if not accepts(1) and not accepts(-1) else ""
    return "above 0" if accepts(0.5) else "at least 1"


@pytest.mark.parametrize("cls", [ModelConfig, TrainConfig, LabelTraining])
def test_descriptions_say_the_limits_that_the_dataclasses_check(cls: type) -> None:
    for name, key in SCHEMA["$defs"][cls.__name__]["properties"].items():
        if key["type"] in ("integer", "number") and name not in RELATED:
            stated = [words for words in LIMITS if words in key["description"]]
            assert stated == [words for words in LIMITS if words == limit(cls, name)], name
        assert RELATED.get(name, "") in key["description"]


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.name)
def test_the_settings_files_name_their_schema_and_are_valid_by_it(path: Path) -> None:
    head, _, name = path.read_text().partition("\n")[0].partition("=")
    assert head == "# yaml-language-server: $schema"
    assert (path.parent / name).resolve() == ROOT / FILES[0]
    assert [*Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(path.read_text()))] == []


def test_the_schema_finds_what_the_jobs_refuse(tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "conf" / "local.yaml").read_text())
    raw["night"] |= {"k": 0, "devise": "cpu"}
    raw["models"][0]["config"]["item_columns"] += [{"name": "brand", "kind": "colour"}]
    del raw["warehouse"]
    found = {
        ".".join(map(str, error.path)): error.validator
        for error in Draft202012Validator(SCHEMA).iter_errors(raw)
    }
    assert found == {
        "": "required",
        "night": "additionalProperties",
        "night.k": "minimum",
        "models.0.config.item_columns.5": "anyOf",
        "models.1.config.item_columns.5": "anyOf",  # YAML's alias: both models have the same list
    }


def subclasses(kind: type[LimeError]) -> Iterator[type[LimeError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_of_the_loaded_code_has_a_row_with_its_exit_code() -> None:
    for package in (pipelines, jobs):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    codes = {"retry": "1 | tries again", "person": "3 | ends", "bug": "70 | tries again"}
    ours = {kind for kind in subclasses(LimeError) if not kind.__module__.startswith("tests.")}
    assert len(ours) > 30
    for kind in ours:
        row = next(line for line in ERRORS.splitlines() if line.startswith(f"| `{kind.__name__}` |"))
        assert row.endswith(f"| {codes[kind.remedy]} | `{kind.__module__}` |")


@pytest.mark.parametrize(
    "fail",
    [
        lambda folder: load_settings(folder / "none.yaml"),
        lambda folder: load_settings(ROOT / "README.md"),
        lambda folder: ModelConfig(width=41),
        lambda folder: ModelConfig(tasks=("purchase", "purchase")),
        lambda folder: TrainConfig(first_cut_days=1),
        lambda folder: LabelTraining(dropout=1),
        lambda folder: check_run_key("a b"),
    ],
)
def test_the_page_has_the_sentence_of_an_error(fail: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises((ValueError, LimeError)) as caught:
        fail(tmp_path)
    said = [line.split(" | ")[0].removeprefix("| ") for line in ERRORS.splitlines() if "](../" in line]
    patterns = [re.escape(text.replace("\\", "").replace("&lt;", "<")).replace("…", ".*") for text in said]
    assert any(re.fullmatch(pattern, str(caught.value)) for pattern in patterns), caught.value
