"""The real scheduler runs nights, a training, a failed audit, forms, and a night whose worker is killed.

The scheduler, the API server and the processors are those of `airflow standalone` on SQLite. The nights are
whole nights, which Airflow starts with spark-submit. There are two tenants with one warehouse: a night of
`shop` is one application, and a night of `steps` has one for each step.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from deltalake import DeltaTable

from pipelines.models.champions import decisions
from pipelines.publish.night_record import find_commits
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import wait_until
from tests.conftest import copy_shop
from tests.dags.airflow_server import LINEAGE, Api, is_of, standalone_environment
from tests.nights import lists_of

pytestmark = pytest.mark.airflow
BACKFILLED, SCHEDULED = ("2024-05-03", "2024-05-04"), ("2024-05-06",)
AUDITED, KILLED = "2024-05-05", "2024-05-07"
NIGHTLY, STEPS, OPERATIONS = "nightly_scoring__shop", "nightly_scoring__steps", "operations__shop"
TRAINING = "weekly_training__shop"
wait_for = partial(wait_until, every=2.0)  # Airflow answers slowly, so it is not asked more often


def ended(airflow: Api, dag: str, nights: tuple[str, ...]) -> Callable[[], bool]:
    """Return a check that all nights have succeeded, which fails as soon as one has failed."""

    def all_there() -> bool:
        runs = airflow.runs(dag)
        failed = {night: run for night, run in runs.items() if run[0] == "failed" and night in nights}
        assert not failed, failed
        return all(runs.get(night, ("", ""))[0] == "success" for night in nights)

    return all_there


@pytest.fixture(scope="module")
def served(ready: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return the shop whose nights Airflow runs."""
    return copy_shop(ready, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def airflow(served: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Run `airflow standalone` over the shop, and end every process that it leaves."""
    home = tmp_path_factory.mktemp("airflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = standalone_environment(
        home, port, Path(served.settings.drops).parent / "settings.yaml", SCHEDULED[0]
    )
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
    dag = NIGHTLY
    wait_for(
        lambda: len(airflow.call("GET", "/api/v2/dags?tags=lime")["dags"]) == 8, "the DAGs are not there"
    )
    for each in (dag, TRAINING):
        airflow.call("PATCH", f"/api/v2/dags/{each}", {"is_paused": False})

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

    airflow.trigger(TRAINING, shop.LAST)
    wait_for(ended(airflow, TRAINING, (shop.LAST,)), "the training has not ended")

    commits = [find_commits(served, night)[-1].version for night in (*SCHEDULED, *BACKFILLED)]
    assert commits == sorted(commits)  # in the order of nights, the backfill after the scheduled nights
    for night in (*BACKFILLED, *SCHEDULED):
        assert sorted(lists_of(served, night)) == list(range(shop.USERS))
    rows = served.read("runs").where("job = 'challenge_model'").collect()
    assert [str(row["ds"]) for row in rows] == [shop.LAST]
    versions = [decision.model_version for decision in decisions(served, "mha")]
    champions = airflow.events("lime://shop/champions")
    assert champions[shop.LAST]["run_id"] == f"{shop.LAST}.challenge-mha"
    assert champions[shop.LAST]["model_version"] in versions
    assert set(airflow.events("lime://shop/recommendations")) == {*SCHEDULED, *BACKFILLED}

    events = [json.loads(line) for line in (airflow.home / LINEAGE).read_text().splitlines()]
    nights = [e for e in events if e["eventType"] == "COMPLETE" and e["job"]["name"] == f"{dag}.night"]
    assert len(nights) == len((*SCHEDULED, *BACKFILLED))
    for event in nights:
        assert {"drops", "events", "candidate_bank"} <= {each["name"] for each in event["inputs"]}
        assert {"user_link_states", "recommendations"} <= {each["name"] for each in event["outputs"]}


def settled(airflow: Api, run: str) -> Callable[[], bool]:
    """Return a check that a run has ended."""
    return lambda: airflow.call("GET", run)["state"] in ("success", "failed")


def test_the_failed_step_is_red_and_a_cleared_task_runs_only_its_step(
    airflow: Api, served: Warehouse
) -> None:
    """Publish a night in separate tasks, whose audits fail at first."""
    airflow.call("PATCH", f"/api/v2/dags/{STEPS}", {"is_paused": False})
    run = airflow.trigger(STEPS, AUDITED)
    wait_for(settled(airflow, run), "the night with a failed audit has not ended")
    assert airflow.call("GET", run)["state"] == "failed"
    assert airflow.tasks(run) == {
        "prepare.ingest": ("success", 1), "prepare.bank": ("success", 1), "prepare.states": ("success", 1),
        "score": ("success", 1), "serve.certify": ("success", 1),
        "serve.audit": ("failed", 1),  # once, although the task has two retries
        "serve.publish": ("upstream_failed", 0), "serve.export": ("upstream_failed", 0),
        "report": ("success", 1),
    }  # fmt: skip
    page = Path(served.settings.warehouse) / "reports" / f"night={AUDITED}.html"
    assert "top_share" in page.read_text()
    for task in ("score", "serve.audit", "report"):
        links = airflow.call("GET", f"{run}/taskInstances/{task}/links")["extra_links"]
        assert links["Page of the night"] == page.as_uri()
    assert "another attempt cannot fix: error: " in airflow.log(run, "serve.audit")

    strict = airflow.home / "strict.yaml"
    strict.write_text(strict.read_text().replace("max_top_share: 0.0", "max_top_share: 1.0"))
    clear = {
        "dry_run": False, "dag_run_id": run.rsplit("/", 1)[-1], "task_ids": ["serve.audit"],
        "include_downstream": True, "only_failed": False, "reset_dag_runs": True,
    }  # fmt: skip
    airflow.call("POST", f"/api/v2/dags/{STEPS}/clearTaskInstances", clear)
    wait_for(settled(airflow, run), "the cleared audit has not ended")
    tasks = airflow.tasks(run)
    assert {tasks[task] for task in ("prepare.ingest", "score", "serve.certify")} == {("success", 1)}
    assert (tasks["serve.audit"], tasks["serve.publish"][0]) == (("success", 2), "success")
    assert tasks["serve.export"][0] == "skipped"
    assert airflow.call("GET", run)["state"] == "success"

    result = airflow.result(run, "serve.publish")
    event = {key: result[key] for key in ("night", "run_id", "model_version")}
    published = result["steps"]["publish_recommendations"]
    assert (event["night"], event["run_id"]) == (AUDITED, published["run_id"])
    assert published["versions"] == {"recommendations": find_commits(served, AUDITED)[-1].version}
    assert published["scoring"]["users"] == shop.USERS
    assert published["scoring"]["plan_reason"]
    assert airflow.events("lime://steps/recommendations") == {AUDITED: event}
    assert (
        airflow.result(run, "score")["steps"]["score_candidates"]["model_version"] == event["model_version"]
    )


def test_forms_take_a_night_back_and_keep_a_user_out_of_the_log(airflow: Api, served: Warehouse) -> None:
    airflow.call("PATCH", f"/api/v2/dags/{OPERATIONS}", {"is_paused": False})
    with pytest.raises(AssertionError, match=r"40\d|422"):
        airflow.trigger(OPERATIONS, "yesterday", action="pin")
    unfit = airflow.trigger(OPERATIONS, AUDITED, action="pin")
    wait_for(settled(airflow, unfit), "the check of the form has not ended")
    tasks = airflow.tasks(unfit)
    assert {task for task, (state, _) in tasks.items() if state != "upstream_failed"} == {"check"}
    assert "pin needs the field reason" in airflow.log(unfit, "check")

    user = "no-number-4711"  # the job refuses it before Spark starts, in a line that names it
    forget = airflow.trigger(OPERATIONS, AUDITED, action="forget", user=user, reason="request 17")
    wait_for(settled(airflow, forget), "the form to forget a user has not ended")
    assert airflow.tasks(forget)["forget"] == ("failed", 1)
    log = airflow.log(forget, "forget")
    assert "is not a whole number" in log
    assert user not in log

    reason = "--release; $(id) {{ ds }}"
    back = airflow.trigger(OPERATIONS, AUDITED, action="roll_back_lists", reason=reason)
    wait_for(settled(airflow, back), "the rollback has not ended")
    tasks = airflow.tasks(back)
    assert {task for task, (state, _) in tasks.items() if state == "success"} == {"check", "roll_back_lists"}
    assert tasks["pin"][0] == "skipped"
    assert airflow.result(back, "roll_back_lists")["steps"]["roll_back"]["reason"] == reason
    assert lists_of(served, AUDITED) == {}
    assert airflow.events("lime://shop/recommendations")[AUDITED]["run_id"] is None


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
    dag = NIGHTLY
    airflow.call("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})
    run = airflow.trigger(dag, KILLED)

    def job_done(job: str) -> bool:
        runs = DeltaTable(served.path("runs")).to_pyarrow_table(columns=["run_id", "job"]).to_pylist()
        return any(row["run_id"].startswith(KILLED) and row["job"] == job for row in runs)

    wait_for(lambda: job_done("build_candidate_bank"), "the bank was not built")
    links = airflow.call("GET", f"{run}/taskInstances/night/links")["extra_links"]
    page = Path(served.settings.warehouse) / "reports" / f"night={KILLED}.html"
    assert links["Page of the night"] == page.as_uri()  # while the task runs
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
