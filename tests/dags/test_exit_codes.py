"""Airflow's operator with the real spark-submit does not retry a fault that only a person can fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from jobs.endings import EXIT_CODES
from synthetic import shop
from tests.dags.test_dags import airflow_environment, python

CODE = """\
import json
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from dags.exit_codes import FOR_A_PERSON
from dags.options import Options
from dags.tasks import submit_job
task = submit_job(Options(), "tidy", "tidy_tables", doc_md="doc")
task.application_args = ["--config", {config!r}, "--ds", {night!r}]
task.name = "lime"
try:
    task.execute({{}})
    print(json.dumps("done"))
except AirflowFailException as error:
    print(json.dumps(["final", str(error)]))
except AirflowException as error:
    print(json.dumps(["again", str(error)]))
"""


@pytest.mark.airflow
def test_a_fault_for_a_person_ends_the_task_and_a_passing_fault_is_tried_again(tmp_path: Path) -> None:
    env = airflow_environment(tmp_path, tmp_path / "s.yaml")
    lost = shop.settings(tmp_path) | {"warehouse": "hdfs://127.0.0.1:1/lime"}
    lost["spark"] = lost["spark"] | {"master": None}
    (tmp_path / "lost.yaml").write_text(yaml.safe_dump(lost))
    none = str(tmp_path / "none.yaml")
    kind, said = json.loads(python(CODE.format(config=none, night=shop.NIGHT), env))
    assert kind == "final"
    assert said.startswith(
        "the job ended with exit code 3, which another attempt cannot fix: error: no settings"
    )
    kind, said = json.loads(python(CODE.format(config=str(tmp_path / "lost.yaml"), night=shop.NIGHT), env))
    assert kind == "again", said
    assert "hdfs://127.0.0.1:1/lime" in said


def test_the_exit_codes_are_those_of_the_jobs(tmp_path: Path) -> None:
    env = airflow_environment(tmp_path, tmp_path / "s.yaml")
    code = (
        "import json\n"
        "from dags.exit_codes import FOR_A_PERSON, find_final\n"
        "said = 'cmd. Error code is: 3.\\nerror: no settings\\nerror: no drops'\n"
        "cases = [(0, None), (1, None), (70, None), (None, None), (143, None), (2, None), (1, 3)]\n"
        "again = [find_final('', *case) is None for case in cases]\n"
        "print(json.dumps([FOR_A_PERSON, again, str(find_final(said, 3))]))"
    )
    codes, again, said = json.loads(python(code, env))
    assert codes == [2, EXIT_CODES["person"]]
    assert again == [True] * 5 + [False] * 2
    assert said.endswith("exit code 3, which another attempt cannot fix: error: no settings; error: no drops")
