"""What jobs tell Airflow: figures, links and assets; and the tasks that need no Spark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars

from dags.links import application_of, page_of
from dags.options import Options
from dags.results import Results, read_results
from jobs.output import ScriptOutput
from pipelines.settings.settings import load_settings
from synthetic import shop
from tests.dags.test_dags import ROOT, airflow_environment, python


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return shop.write_settings(tmp_path)


def results_of(tmp_path: Path, config: Path, *results: tuple[str, dict[str, object]]) -> Results:
    """Return what Airflow reads after a job has written results."""
    file = tmp_path / "results.jsonl"
    output = ScriptOutput(str(file))
    output.start(load_settings(config))
    with bound_contextvars(night="2024-05-01", run="2024-05-01.2"):
        for job, result in results:
            output.result(job, result)
    return read_results(file)


def test_figures_night_run_and_model_reach_airflow(tmp_path: Path, config: Path) -> None:
    score = {"model_version": "v7", "policies": {"all": {"users": 40}}, "rows": [1, 2]}
    found = results_of(tmp_path, config, ("score_candidates", score), ("verify_night", {"passed": True}))
    assert found.event() == {"night": "2024-05-01", "run_id": "2024-05-01.2", "model_version": "v7"}
    assert found.to_xcom()["steps"] == {
        "score_candidates": {"model_version": "v7", "policies": {"all": {"users": 40}}},
        "verify_night": {"passed": True},
    }
    assert json.loads(json.dumps(found.to_xcom())) == found.to_xcom()
    page = tmp_path / "warehouse" / "reports" / "night=2024-05-01.html"
    assert page_of(Options(), found) == page.as_uri()
    assert page_of(Options(reports_url="https://lake/reports/"), found) == (
        "https://lake/reports/night=2024-05-01.html"
    )


def test_the_event_of_a_challenge_and_of_a_rollback_name_what_is_in_force(
    tmp_path: Path, config: Path
) -> None:
    challenge = {"challenger": "new", "champion": "old", "promoted": False}
    kept = results_of(tmp_path, config, ("challenge_model", challenge))
    assert kept.model_version == "old"
    promoted = results_of(tmp_path, config, ("challenge_model", challenge | {"promoted": True}))
    assert promoted.model_version == "new"
    back = results_of(tmp_path, config, ("roll_back", {"night": "2024-05-01", "run_id": "2024-05-01.1"}))
    assert back.run_id == "2024-05-01.1"
    assert results_of(tmp_path, config, ("roll_back", {"night": "2024-05-01"})).run_id is None  # withdrawn


def test_the_link_to_spark_is_the_history_or_the_application_itself() -> None:
    found = Results(application="app-1", ui="http://driver:4040")
    assert application_of(Options(), found) == "http://driver:4040"
    assert application_of(Options(history_url="http://history:18080/"), found) == (
        "http://history:18080/history/app-1/jobs/"
    )
    assert (application_of(Options(), Results()), page_of(Options(), Results())) == ("", "")


def test_a_job_that_wrote_nothing_tells_nothing(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none") == Results()


def test_an_export_to_nowhere_ends_without_a_java_virtual_machine(tmp_path: Path, config: Path) -> None:
    results = tmp_path / "results.jsonl"
    options = ["--config", str(config), "--ds", shop.NIGHT, "--steps", "export_recommendations"]
    done = subprocess.run(
        [sys.executable, "jobs/run_steps.py", *options, "--result", str(results)],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "JAVA_HOME": "/nowhere", "PATH": ""}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    exported = read_results(results).steps["export_recommendations"]["exported"]
    assert exported == "nowhere: the settings have no export"


REPORT = """
import json
from airflow.sdk.exceptions import AirflowFailException
from dags.options import Options
from dags.tasks import write_page
task = write_page(Options(config={config!r}))
task.arguments = ["--config", {config!r}, "--ds", "2024-05-01"]
try:
    task.execute({{}})
except AirflowFailException as error:
    print(json.dumps([str(error), task.on_failure_fail_dagrun, task.is_teardown]))
"""


def test_the_page_of_an_unknown_night_fails_at_once_and_not_the_run(tmp_path: Path, config: Path) -> None:
    said, fails, teardown = json.loads(
        python(REPORT.format(config=str(config)), airflow_environment(tmp_path, config))
    )
    assert "no run has taken night 2024-05-01" in said
    assert (fails, teardown) == (False, True)


WAIT = """
import json
from airflow.sdk.exceptions import TaskDeferred
from dags.nightly_scoring import wait
from dags.options import Options
task = wait(Options(wait_for={pattern!r}, wait_hours=2))
text = task.filepath
task.filepath = task.get_template_env().from_string(text).render(
    params={{"night": "2024-05-01"}}, macros=__import__("airflow.sdk.execution_time.macros", fromlist=["x"]))
try:
    task.execute({{}})
    print(json.dumps("found"))
except TaskDeferred as deferred:
    path, more = deferred.trigger.serialize()
    print(json.dumps([path, more["filepath"], deferred.timeout.total_seconds()]))
"""


def test_the_wait_for_a_drop_holds_no_slot_until_the_file_of_the_day_before_is_there(tmp_path: Path) -> None:
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml")
    code = WAIT.format(pattern=f"{tmp_path}/ds={{day}}/_SUCCESS")
    awaited = tmp_path / "ds=2024-04-30" / "_SUCCESS"
    trigger = "airflow.providers.standard.triggers.file.FileTrigger"
    assert json.loads(python(code, env)) == [trigger, str(awaited), 7200]
    awaited.parent.mkdir()
    awaited.touch()
    assert json.loads(python(code, env)) == "found"
