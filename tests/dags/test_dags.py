"""The DAGs are light to import and have the right shape, and Airflow runs a real night."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import copy_shop
from tests.nights import lists_of

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


def test_parsing_imports_neither_torch_nor_pyspark(tmp_path: Path) -> None:
    pools = {"LIME_POOL": "cores", "LIME_GPU_POOL": "gpus"}
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml") | pools
    code = (
        "import json, sys\n"
        "import dags.nightly_scoring as n\n"
        "names = ('torch', 'pyspark', 'delta', 'pipelines', 'lime_model', 'jobs')\n"
        "heavy = [m for m in names if m in sys.modules]\n"
        "tasks = {t.task_id: [sorted(t.downstream_task_ids), t.retries, t.application_args, t.pool]"
        " for t in n.nightly_scoring.tasks if t.task_id != 'report'}\n"
        "print(json.dumps([heavy, tasks]))"
    )
    heavy, tasks = json.loads(python(code, env))
    assert heavy == []
    assert {name: task[0] for name, task in tasks.items()} == {
        "prepare.ingest": ["prepare.bank", "prepare.states"],  # these two run at the same time
        "prepare.bank": ["report", "score"], "prepare.states": ["report", "score"],
        "score": ["serve.certify"], "serve.certify": ["serve.audit"], "serve.audit": ["serve.publish"],
        "serve.publish": ["serve.export"], "serve.export": ["report"],
    }  # fmt: skip
    assert {name: task[3] for name, task in tasks.items() if task[3] != "cores"} == {"score": "gpus"}
    assert all(task[1] == 2 for task in tasks.values())
    steps = [step for task in tasks.values() for step in task[2][task[2].index("--steps") + 1 :]]
    from pipelines.steps import NIGHT_STEPS

    assert tuple(steps) == NIGHT_STEPS  # every step once, in order
    assert {len([a for a in task[2] if "params.night" in a]) for task in tasks.values()} == {1}


def test_the_night_of_a_run_comes_from_its_parameter_or_event_or_date(tmp_path: Path) -> None:
    """The parameter comes first, then the event of the asset that started the run, then the logical date."""
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml") | {"LIME_SCHEDULE": "events"}
    code = (
        "import json, types, jinja2\n"
        "from dags.tasks import NIGHT\n"
        "from dags.nightly_scoring import nightly_scoring as dag\n"
        "event = lambda **extra: types.SimpleNamespace(extra=extra)\n"
        "events = {'asset': [event(night='2024-01-01'), event(night='2024-01-02'), event()]}\n"
        "say = lambda **context: jinja2.Template(NIGHT).render(**context)\n"
        "print(json.dumps([say(params={'night': '2024-03-01'}, triggering_asset_events=events),"
        " say(params={}, triggering_asset_events=events),"
        " say(params={}, triggering_asset_events={}, ds='2024-02-01'),"
        " [a.name for a in dag.timetable.asset_condition.objects]]))"
    )
    assert json.loads(python(code, env)) == ["2024-03-01", "2024-01-02", "2024-02-01", ["lime://events"]]


# This code uses the objects of the scheduler and of backfills: the stored DAG, and the runs of its timetable.
NIGHTS = """
import importlib, json, os
import pendulum
import dags.nightly_scoring as nightly, dags.weekly_training as training, dags.weekly_upkeep as upkeep
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from dags.tasks import NIGHT

start, moment = pendulum.datetime(2024, 5, 1), pendulum.datetime(2024, 5, 13, 23)
found = []
for schedule in json.loads(os.environ["SCHEDULES"]):
  os.environ["LIME_SCHEDULE"] = schedule
  importlib.reload(nightly)  # it reads the environment when Airflow parses it
  latest, backfilled, deadlines = {}, [], []
  for dag in (nightly.nightly_scoring, training.weekly_training, upkeep.weekly_upkeep):
      stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
      say = lambda run: dag.get_template_env().from_string(NIGHT).render(
          params={'night': None}, triggering_asset_events={}, ds=run.logical_date.strftime("%Y-%m-%d"))
      run = following = None
      while following is None or following.run_after <= moment:
          run = following
          following = stored.timetable.next_dagrun_info(
              last_automated_data_interval=run and run.data_interval,
              restriction=TimeRestriction(earliest=start, latest=None, catchup=True))
      latest[dag.dag_id] = [str(run.run_after)[:16], say(run)]
      if dag is nightly.nightly_scoring:
          infos = stored.iter_dagrun_infos_between(start.add(days=2), start.add(days=4, hours=12))
          backfilled = [say(info) for info in infos]
          deadlines = [str(run.logical_date + alert.interval)[:16] for alert in dag.deadline or []]
  found.append([latest, backfilled, deadlines])
print(json.dumps(found))
"""


# Each schedule with the start and the night of its last run, the days of a backfill from 3 to 5 May, and the
# deadline of the last run.
SCHEDULES = (
    ("@daily", ("2024-05-13 00:00", "2024-05-13"), [3, 4, 5], "2024-05-13 06:00"),
    ("30 5 * * *", ("2024-05-13 05:30", "2024-05-13"), [3, 4, 5], "2024-05-13 06:00"),
    ("30 22 * * 5", ("2024-05-10 22:30", "2024-05-10"), [3], "2024-05-11 06:00"),
)


@pytest.mark.parametrize("data_intervals", ["True", "False"])
def test_the_night_of_a_run_is_the_day_it_starts_whatever_the_option_for_cron_is(
    data_intervals: str, tmp_path: Path
) -> None:
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml")
    # Airflow's global time zone must not change the result either.
    env |= {
        "SCHEDULES": json.dumps([schedule for schedule, *_ in SCHEDULES]),
        "LIME_DEADLINE": "06:00",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Asia/Tokyo",
        "AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS": data_intervals,
    }
    weekly = {
        "weekly_training": ["2024-05-11 06:00", "2024-05-11"],
        "weekly_upkeep": ["2024-05-12 12:00", "2024-05-12"],
    }
    expected = [
        [{"nightly_scoring": list(run), **weekly}, [f"2024-05-{day:02}" for day in backfilled], [late]]
        for _, run, backfilled, late in SCHEDULES
    ]
    assert json.loads(python(NIGHTS, env)) == expected


def test_alarms_reach_the_web_hook_and_a_dead_web_hook_does_no_harm(tmp_path: Path) -> None:
    heard: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

    code = (
        "import asyncio, types\n"
        "from airflow.triggers.callback import CallbackTrigger\n"
        "from dags.alarms import TaskFailed\n"
        "async def fire(**run):\n"  # as Airflow's triggerer calls it
        "    context = {'context': {'dag_run': run, 'deadline': {}}}\n"
        "    async for event in CallbackTrigger('dags.alarms.NightIsLate', context).run(): last = event\n"
        "    assert last.payload['state'] == 'success', last.payload\n"
        "run = types.SimpleNamespace(conf={'night': '2024-05-01'}, logical_date=None, run_id='r1')\n"
        "task = types.SimpleNamespace(dag_id='nightly_scoring', task_id='publish', log_url='http://log')\n"
        "TaskFailed()({'task_instance': task, 'dag_run': run, 'exception': 'psi is 3'})\n"
        "late = {'dag_id': 'nightly_scoring', 'logical_date': '2024-05-02', 'dag_run_id': 'r2'}\n"
        "asyncio.run(fire(**late, run_type='scheduled'))\n"
        "asyncio.run(fire(**late, run_type='backfill'))\n"
        "print('went on')"
    )
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml")
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert python(code, env | {"LIME_ALARM_URL": url}) == "went on"
        server.shutdown()
    assert [text.split(" ")[0] for text in heard] == ["nightly_scoring.publish", "nightly_scoring"]
    assert "night 2024-05-01 failed for good in run r1: psi is 3" in heard[0]
    assert "night 2024-05-02 has not ended by its deadline (run r2)" in heard[1]
    assert python(code, env | {"LIME_ALARM_URL": url}) == "went on"  # nobody listens any more


@pytest.mark.airflow
def test_airflow_runs_a_night(ready: Warehouse, tmp_path: Path) -> None:
    """`airflow dags test` publishes a night in one application, as the demo does, and writes its page."""
    warehouse = copy_shop(ready, tmp_path / "shop")
    env = airflow_environment(tmp_path, tmp_path / "shop" / "settings.yaml") | {"LIME_APPLICATIONS": "1"}
    airflow = str(Path(sys.executable).parent / "airflow")
    subprocess.run([airflow, "db", "migrate"], env=env, check=True, capture_output=True)
    conf = json.dumps({"night": "2024-05-06", "run_key": "airflow"})
    done = subprocess.run(
        [airflow, "dags", "test", "nightly_scoring", "2024-05-06", "--conf", conf],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    lists = lists_of(warehouse, "2024-05-06")
    assert sorted(lists) == list(range(shop.USERS))
    runs = DeltaTable(warehouse.path("runs")).to_pyarrow_table().to_pylist()
    jobs = {row["job"] for row in runs if row["run_id"] == "2024-05-06.1"}
    assert {"build_candidate_bank", "build_link_states", "score_candidates", "verify_night"} <= jobs
    page = Path(warehouse.settings.warehouse) / "reports" / "night=2024-05-06.html"
    assert "2024-05-06" in page.read_text()
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        found = dict(database.execute("SELECT task_id || '.' || key, value FROM xcom").fetchall())
    result = json.loads(found["night.return_value"])
    assert result["run_id"] == "2024-05-06.1"
    assert result["steps"]["publish_recommendations"]["scoring"]["users"] == shop.USERS
    assert json.loads(found["night._link_NightPage"]) == page.as_uri()
    assert json.loads(found["report._link_NightPage"]) == page.as_uri()
