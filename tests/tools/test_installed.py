"""The wheel in an empty environment: what runs without any extra, and what the other commands say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.lime.commands import COMMANDS
from synthetic import shop
from tests.conftest import ROOT
from tests.pipelines.report.warehouses import SmallWarehouse

pytestmark = pytest.mark.operate  # it builds the package, and installs it from the package registry
ALONE = ("status", "report")  # commands that need no extra
NOT_ASKED = ("check", "init")  # what they say depends on the machine
UV = Path(sys.executable).parent / "uv"
# Options that a command needs besides the settings and `--ds`.
MORE = {"rollback": ["--reason", "x"], "pin": ["--reason", "x"], "forget": ["--reason", "x", "--user", "1"]}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel without extras into a new environment; return the environment."""
    root = tmp_path_factory.mktemp("installed")
    subprocess.run(["bash", str(ROOT / "tools" / "package.sh")], check=True, capture_output=True)
    (wheel,) = (ROOT / "dist").glob("*.whl")
    environment = root / "venv"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, environment], check=True)
    subprocess.run(
        [UV, "pip", "install", "-q", "--python", environment / "bin" / "python", wheel], check=True
    )
    return environment


def lime(environment: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command outside of the checkout."""
    hidden = ("PYTHONPATH", "LIME_JARS", "LIME_CONFIG")
    return subprocess.run(
        [environment / "bin" / "lime", *options], capture_output=True, text=True, check=False,
        cwd=environment, env={name: value for name, value in os.environ.items() if name not in hidden},
    )  # fmt: skip


def test_a_base_install_has_neither_spark_nor_torch_and_shows_its_help(empty: Path) -> None:
    there = {path.name for path in (empty / "lib").glob("python*/site-packages/*")}
    assert {"jobs", "pipelines", "lime_model", "deltalake"} <= there
    assert not there & {"pyspark", "delta", "torch", "pandas", "scipy", "airflow", "redis"}
    shown = lime(empty, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(f"\n  {name} " in shown.stdout for name in COMMANDS)
    code = (
        "import sys, jobs.lime.app\nassert not {'numpy', 'pydantic', 'deltalake', 'rich'} & set(sys.modules)"
    )
    subprocess.run([empty / "bin" / "python", "-c", code], cwd=empty, check=True)


def test_status_and_report_read_a_warehouse(empty: Path, tmp_path: Path) -> None:
    warehouse, settings = SmallWarehouse(tmp_path), tmp_path / "settings.yaml"
    warehouse.publish(shop.NIGHT, {"u1": ["i1"], "u2": ["i2"]})
    shown = lime(empty, "status", "--config", str(settings), "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["nights"][0]["verdict"] == "published"
    assert f"Last night {shop.NIGHT}: published" in lime(empty, "status", "--config", str(settings)).stdout
    page = lime(empty, "report", "--config", str(settings), "--ds", shop.NIGHT, "--json")
    assert page.returncode == 0, page.stderr
    assert "</html>" in Path(json.loads(page.stdout)["results"]["report_night"]["page"]).read_text()


@pytest.mark.parametrize("name", [each for each in COMMANDS if each not in (*ALONE, *NOT_ASKED)])
def test_every_other_command_names_its_extra(name: str, empty: Path, tmp_path: Path) -> None:
    settings = shop.write_settings(tmp_path)
    done = lime(empty, name, "--config", str(settings), "--ds", shop.NIGHT, *MORE.get(name, []))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "error: this command needs pyspark, which is not installed; install it with its extra: "
        "pip install 'lime-batch-scoring[spark]'\n"
    )
