"""The dependencies of the package, of a checkout and of the code are the same."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jobs.extras import EXTRAS, PACKAGE, MissingExtra, find_missing_extra
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = ("lime_model", "pipelines", "jobs", "dags")
# pyspark brings py4j, and Airflow brings pendulum and OpenLineage's client; Jinja2 brings markupsafe.
BROUGHT = {"py4j": "pyspark", "pendulum": "apache-airflow", "markupsafe": "jinja2"}
BROUGHT["openlineage-python"] = "apache-airflow-providers-openlineage"


def read(lines: list[str]) -> dict[str, Requirement]:
    """Return requirements by name, without those of our own extras."""
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(each.name): each for each in found if each.name != PACKAGE}


def pins() -> list[str]:
    """Return the lines of requirements.txt without comments."""
    lines = (line.partition(" #")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


EXTRA = {extra: read(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
BASE = read(PROJECT["dependencies"])


def test_the_pins_of_a_checkout_lie_in_the_ranges_of_the_package() -> None:
    pinned = read(pins())
    assert len(pinned) == len(pins()), "a package is pinned twice"
    assert [str(each) for each in pinned.values() if len(each.specifier) != 1] == []
    for name, wanted in [pair for each in (BASE, *EXTRA.values()) for pair in each.items()]:
        (pin,) = pinned[name].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), f"{wanted} does not allow {pin}"
        assert wanted.marker == pinned[name].marker


def test_every_pin_is_in_the_lock() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = read([line.rstrip(" \\") for line in lines if line[:1].isalnum()])
    for name, pin in read(pins()).items():
        assert locked[name].specifier == pin.specifier


def imports(path: Path) -> Iterator[str]:
    """Yield the first names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_library_that_the_code_imports_is_a_dependency() -> None:
    used = {name for folder in OURS for path in (ROOT / folder).rglob("*.py") for name in imports(path)}
    libraries = used - set(OURS) - sys.stdlib_module_names
    distributions = packages_distributions()
    assert {"torch", "pyspark", "airflow", "typer"} <= libraries
    for library in sorted(libraries):
        names = {canonicalize_name(each) for each in distributions[library]}
        names |= {BROUGHT[name] for name in names if name in BROUGHT}
        # Only machines with GPUs and tests import triton, which torch brings on Linux.
        extra = "dev" if library == "triton" else EXTRAS.get(library)
        known = EXTRA[extra] if extra else BASE
        shared = any(name.startswith("apache-airflow") for name in names) and extra == "airflow"
        assert shared or names & known.keys(), f"{library} is not a dependency of {extra or 'the base'}"


def test_the_extras_that_errors_name_are_those_of_the_package() -> None:
    assert PROJECT["name"] == PACKAGE
    assert set(EXTRAS.values()) == {"spark", "train", "redis", "airflow"}
    assert set(EXTRA) == {*EXTRAS.values(), "dev"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [("pyspark.sql", "spark"), ("torch", "spark"), ("scipy.sparse", "train"), ("redis", "redis")],
)
def test_a_missing_library_is_a_sentence_with_the_extra(module: str, extra: str) -> None:
    error = find_missing_extra(ModuleNotFoundError("no", name=module))
    assert isinstance(error, MissingExtra)
    assert error.remedy == "person"
    assert str(error) == (
        f"this command needs {module.partition('.')[0]}, which is not installed; install it with its extra: "
        f"pip install 'lime-batch-scoring[{extra}]'"
    )
    assert find_missing_extra(ModuleNotFoundError("no", name="jobs.no_such_module")) is None
    assert find_missing_extra(ImportError("no", name="torch")) is None
