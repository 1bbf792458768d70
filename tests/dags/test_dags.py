"""The DAG: light to import, right in shape, and a real run of a night through Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.tables import Warehouse
from tests import shop
from tests.pipelines.test_night import lists_of

ROOT = Path(__file__).resolve().parent.parent.parent


def airflow_environment(home: Path, config: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW_CONN_SPARK_DEFAULT": "spark://local%5B2%5D",
        "LIME_CONFIG": str(config),
    }


def python(code: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_parsing_pulls_in_neither_torch_nor_pyspark(tmp_path: Path) -> None:
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml")
    code = (
        "import json, sys\n"
        "import dags.nightly_scoring as n\n"
        "names = ('torch', 'pyspark', 'delta', 'pipelines', 'lime_model', 'jobs')\n"
        "heavy = [m for m in names if m in sys.modules]\n"
        "tasks = {t.task_id: [sorted(t.downstream_task_ids), t.retries, t.application_args]"
        " for t in n.dag.tasks}\n"
        "print(json.dumps([heavy, tasks]))"
    )
    heavy, tasks = json.loads(python(code, env))
    assert heavy == []
    assert {name: task[0] for name, task in tasks.items()} == {
        "prepare": ["score"], "score": ["publish"], "publish": [],
    }  # fmt: skip
    assert all(task[1] == 2 for task in tasks.values())
    steps = [step for task in tasks.values() for step in task[2][task[2].index("--steps") + 1 :]]
    from pipelines.plan import STEP_NAMES

    assert tuple(steps) == STEP_NAMES  # every step once, in order
    assert all("{{ params.night or ds }}" in task[2] for task in tasks.values())


@pytest.mark.airflow
def test_airflow_runs_a_night(trained: Warehouse, tmp_path: Path) -> None:
    """`airflow dags test`, with spark-submit, publishes what the steps in this process publish."""
    root = Path(trained.settings.drops).parent
    env = airflow_environment(tmp_path, root / "settings.yaml")
    airflow = str(Path(sys.executable).parent / "airflow")
    subprocess.run([airflow, "db", "migrate"], env=env, check=True, capture_output=True)
    conf = json.dumps({"night": "2024-05-06", "run_key": "airflow"})
    done = subprocess.run(
        [airflow, "dags", "test", "nightly_scoring", "2024-05-06", "--conf", conf],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    lists = lists_of(trained, "2024-05-06")
    assert sorted(lists) == list(range(shop.USERS))
    runs = DeltaTable(trained.path("runs")).to_pyarrow_table().to_pylist()
    jobs = {row["job"] for row in runs if row["run_id"] == "2024-05-06.1"}
    assert {"build_candidate_bank", "build_link_states", "score_candidates", "verify_night"} <= jobs
