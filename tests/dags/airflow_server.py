"""A client of Airflow's REST API, and the environment of an `airflow standalone` with two tenants."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.dags.test_dags import airflow_environment

LINEAGE = "lineage.json"
TRIES = 60  # of a request while the database is locked


class Api:
    """A client of Airflow's REST API."""

    def __init__(self, port: int, home: Path) -> None:
        self.root, self.token, self.home = f"http://127.0.0.1:{port}", "", home

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request, and return the answer.

        It is sent again after an answer with the code 500: the SQLite database was locked, and nothing was
        changed.

        Args:
            method: the method of HTTP.
            path: the path below the server's address.
            body: the body, as values of JSON.
        """
        for _ in range(TRIES - 1):
            try:
                return self._send(method, path, body)
            except AssertionError as error:
                if ": 500 " not in str(error):
                    raise
                time.sleep(1)
        return self._send(method, path, body)

    def _send(self, method: str, path: str, body: Any) -> Any:
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

    def trigger(self, dag: str, night: str, **conf: Any) -> str:
        """Start a run, and return its path."""
        body = {"logical_date": None, "conf": {"night": night, **conf}}
        run = self.call("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"]
        return f"/api/v2/dags/{dag}/dagRuns/{run}"

    def tasks(self, run: str) -> dict[str, tuple[str, int]]:
        """Return the state and the number of tries of each task of a run."""
        found = self.call("GET", f"{run}/taskInstances")["task_instances"]
        return {each["task_id"]: (each["state"], each["try_number"]) for each in found}

    def result(self, run: str, task: str) -> Any:
        """Return what a task has given to Airflow as its XCom."""
        value = self.call("GET", f"{run}/taskInstances/{task}/xcomEntries/return_value")["value"]
        return json.loads(value) if isinstance(value, str) else value

    def log(self, run: str, task: str) -> str:
        """Return the log of the first try of a task."""
        return json.dumps(self.call("GET", f"{run}/taskInstances/{task}/logs/1"))

    def events(self, asset: str) -> dict[str, Any]:
        """Return the extra of each event of an asset, by its night; of several, the last one."""
        found = self.call("GET", "/api/v2/assets/events?limit=100&order_by=timestamp")["asset_events"]
        return {each["extra"]["night"]: each["extra"] for each in found if each["name"] == asset}


def is_of(process: psutil.Process, leader: int, home: str) -> bool:
    """Return whether Airflow started a process.

    Its session shows that. A process with its own session shows it by its environment, which is lost if the
    process has changed its title.
    """
    try:
        return os.getsid(process.pid) == leader or process.environ().get("AIRFLOW_HOME") == home
    except (psutil.Error, OSError):
        return False


def write_tenants(home: Path, config: Path) -> Path:
    """Write the file of the two tenants; the settings of the second one let no night pass the audits.

    Args:
        home: the folder of Airflow.
        config: the settings file of the shop.
    """
    strict = yaml.safe_load(config.read_text()) | {"audits": {"max_top_share": 0.0}}
    (home / "strict.yaml").write_text(yaml.safe_dump(strict))
    tenants = {
        "shop": {"config": str(config), "applications": 1},
        # Airflow 3.3.2 cannot clear a task of a run that has a deadline from the time when it was queued.
        "steps": {"config": str(home / "strict.yaml"), "schedule": "events", "deadline": ""},
    }
    file = home / "tenants.yaml"
    file.write_text(yaml.safe_dump({"tenants": tenants}))
    return file


def standalone_environment(home: Path, port: int, config: Path, night: str) -> dict[str, str]:
    """Return the environment of `airflow standalone`.

    Args:
        home: the folder of Airflow.
        port: the port of its API server.
        config: the settings file of the shop.
        night: the only night that is scheduled.
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
        "LIME_TENANTS": str(write_tenants(home, config)),
        "LIME_CATCHUP": "1",
        "LIME_DEADLINE": "06:00",
        "LIME_FIRST_NIGHT": night,
        "LIME_LAST_NIGHT": night,
    }
