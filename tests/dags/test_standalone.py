"""The real scheduler runs a scheduled night, a backfill, a training, and a night whose worker is killed.

The scheduler, the API server and the processors are those of `airflow standalone` on SQLite. The nights are
whole nights, which Airflow starts with spark-submit.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from deltalake import DeltaTable

from pipelines.models.champions import decisions
from pipelines.publish.night_record import find_commits
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import wait_until
from tests.conftest import copy_shop
from tests.dags.test_dags import airflow_environment
from tests.nights import lists_of

pytestmark = pytest.mark.airflow
BACKFILLED, SCHEDULED = ("2024-05-03", "2024-05-04"), ("2024-05-06",)
KILLED, LINEAGE = "2024-05-07", "lineage.json"
wait_for = partial(wait_until, every=2.0)  # Airflow answers slowly, so it is not asked more often


class Api:
    """A client of Airflow's REST API."""

    def __init__(self, port: int, home: Path) -> None:
        self.root, self.token, self.home = f"http://127.0.0.1:{port}", "", home

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.root + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error

    def runs(self, dag: str) -> dict[str, tuple[str, str]]:
        """Return the state and the type of each run, by its night."""
        found = self.call("GET", f"/api/v2/dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return {
            (run["conf"] or {}).get("night") or run["logical_date"][:10]: (run["state"], run["run_type"])
            for run in found
        }

    def trigger(self, dag: str, night: str) -> None:
        body = {"logical_date": None, "conf": {"night": night}}
        self.call("POST", f"/api/v2/dags/{dag}/dagRuns", body)


def ended(airflow: Api, dag: str, nights: tuple[str, ...]) -> Callable[[], bool]:
    """Return a check that all nights have succeeded, which fails as soon as one has failed."""

    def all_there() -> bool:
        runs = airflow.runs(dag)
        failed = {night: run for night, run in runs.items() if run[0] == "failed" and night in nights}
        assert not failed, failed
        return all(runs.get(night, ("", ""))[0] == "success" for night in nights)

    return all_there


def is_of(process: psutil.Process, leader: int, home: str) -> bool:
    """Return whether Airflow started a process.

    Its session shows that. A process with its own session shows it by its environment, which is lost if the
    process has changed its title.
    """
    try:
        return os.getsid(process.pid) == leader or process.environ().get("AIRFLOW_HOME") == home
    except (psutil.Error, OSError):
        return False


@pytest.fixture(scope="module")
def served(ready: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return the shop whose nights Airflow runs."""
    return copy_shop(ready, tmp_path_factory.mktemp("served"))


def standalone_environment(home: Path, port: int, config: Path) -> dict[str, str]:
    """Return the environment of `airflow standalone`.

    Args:
        home: the folder of Airflow.
        port: the port of its API server.
        config: the settings file of the shop.
    """
    return airflow_environment(home, config) | {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(home / LINEAGE), "append": True}
        ),
        # The first of these is the seconds until a task whose worker has died is tried again.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
        "LIME_RETRY_SECONDS": "1",
        "LIME_APPLICATIONS": "1",
        "LIME_CATCHUP": "1",
        "LIME_DEADLINE": "06:00",
        "LIME_FIRST_NIGHT": SCHEDULED[0],
        "LIME_LAST_NIGHT": SCHEDULED[-1],
    }


@pytest.fixture(scope="module")
def airflow(served: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Run `airflow standalone` over the shop, and end every process that it leaves."""
    home = tmp_path_factory.mktemp("airflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = standalone_environment(home, port, Path(served.settings.drops).parent / "settings.yaml")
    log = (home / "standalone.log").open("wb")
    command = [str(Path(sys.executable).parent / "airflow"), "standalone"]
    process = subprocess.Popen(command, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True)
    api = Api(port, home)

    def healthy() -> bool:
        assert process.poll() is None, (home / "standalone.log").read_text()[-3000:]
        try:
            health = api.call("GET", "/api/v2/monitor/health")
        except OSError:
            return False
        return all(
            health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor", "triggerer")
        )

    try:
        wait_for(healthy, "Airflow is not healthy")
        api.token = api.call("GET", "/auth/token")["access_token"]
        yield api
    finally:
        left = [p for p in psutil.process_iter() if is_of(p, process.pid, str(home))]
        for each in [psutil.Process(process.pid), *left] if process.poll() is None else left:
            each.terminate()
        _, alive = psutil.wait_procs(left, timeout=20)
        for each in alive:
            os.kill(each.pid, signal.SIGKILL)
        process.wait(timeout=30)
        log.close()


def test_a_scheduled_night_a_backfill_and_a_training(airflow: Api, served: Warehouse) -> None:
    dag = "nightly_scoring"
    wait_for(
        lambda: len(airflow.call("GET", "/api/v2/dags?tags=lime")["dags"]) == 3, "the DAGs are not there"
    )
    airflow.call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})
    airflow.call("PATCH", "/api/v2/dags/weekly_training", {"is_paused": False})

    wait_for(ended(airflow, dag, SCHEDULED), "the scheduled night has not ended")
    backfill = {
        "dag_id": dag, "from_date": f"{BACKFILLED[0]}T00:00:00Z", "to_date": f"{BACKFILLED[-1]}T00:00:00Z",
        "max_active_runs": 1, "run_backwards": False, "dag_run_conf": {}, "reprocess_behavior": "none",
    }  # fmt: skip
    airflow.call("POST", "/api/v2/backfills", backfill)
    wait_for(ended(airflow, dag, BACKFILLED), "the backfill has not ended")
    runs = airflow.runs(dag)
    assert {runs[night][1] for night in SCHEDULED} == {"scheduled"}
    assert {runs[night][1] for night in BACKFILLED} == {"backfill"}

    airflow.trigger("weekly_training", shop.LAST)
    wait_for(ended(airflow, "weekly_training", (shop.LAST,)), "the training has not ended")

    commits = [find_commits(served, night)[-1].version for night in (*SCHEDULED, *BACKFILLED)]
    assert commits == sorted(commits)  # in the order of nights, the backfill after the scheduled nights
    for night in (*BACKFILLED, *SCHEDULED):
        assert sorted(lists_of(served, night)) == list(range(shop.USERS))
    rows = served.read("runs").where("job = 'challenge_model'").collect()
    assert [str(row["ds"]) for row in rows] == [shop.LAST]
    assert len(decisions(served, "mha")) >= 1

    events = [json.loads(line) for line in (airflow.home / LINEAGE).read_text().splitlines()]
    nights = [e for e in events if e["eventType"] == "COMPLETE" and e["job"]["name"] == f"{dag}.night"]
    assert len(nights) == len((*SCHEDULED, *BACKFILLED))
    for event in nights:
        assert {"drops", "events", "candidate_bank"} <= {each["name"] for each in event["inputs"]}
        assert {"user_link_states", "recommendations"} <= {each["name"] for each in event["outputs"]}


def drivers(night: str) -> list[psutil.Process]:
    """Return our processes of a night: the JVM of spark-submit, the driver and its workers."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if night in line and any(part.endswith("run_steps.py") for part in line):
            found += [process, *process.children(recursive=True)]
    return found


def test_a_killed_worker_leaves_no_spark_behind_and_its_retry_publishes(
    airflow: Api, served: Warehouse
) -> None:
    dag = "nightly_scoring"
    airflow.call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})
    airflow.trigger(dag, KILLED)

    def job_done(job: str) -> bool:
        runs = DeltaTable(served.path("runs")).to_pyarrow_table(columns=["run_id", "job"]).to_pylist()
        return any(row["run_id"].startswith(KILLED) and row["job"] == job for row in runs)

    wait_for(lambda: job_done("build_candidate_bank"), "the bank was not built")
    left = drivers(KILLED)
    jvm = next(process for process in left if process.name() == "java")
    supervisor = jvm.parents()[1]  # the supervisor is above the task that has started spark-submit
    assert "airflow" in " ".join(supervisor.cmdline())
    supervisor.kill()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []
    assert not job_done("publish_recommendations")

    wait_for(ended(airflow, dag, (KILLED,)), "the retry has not ended")
    assert drivers(KILLED) == []
    assert sorted(lists_of(served, KILLED)) == list(range(shop.USERS))
    assert len(find_commits(served, KILLED)) == 1
