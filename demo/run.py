"""Run the whole demo: `make demo`.

The demo writes drops, ingests them, trains two models, and runs the Airflow DAG for two nights, the second
one twice. Meanwhile it measures offline metrics as of the first night. It checks the lists outside Spark. At
the end it writes the pages of the nights and prints a report. Every step is a command that you could type; it
is printed before it runs.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

from demo.check import check_night, check_unseen, evaluation_runs, same_lists
from demo.commands import Command, finish
from demo.complete_journey import write_drops
from demo.report import print_report
from pipelines.operate.machine_checks import free_memory
from pipelines.settings.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
CONFIG = "conf/local.yaml"
FIRST, NIGHTS, LAST = "2017-01-01", ("2017-12-04", "2017-12-05"), "2017-12-31"
# The policy of the settings excludes these departments from the published lists.
INELIGIBLE = ("FUEL", "COUPON")
AIRFLOW = str(Path(sys.executable).parent / "airflow")
ROOMY = 10 << 30  # bytes of free memory with which the evaluation and the nights run side by side


def environment() -> dict[str, str]:
    """Return an environment with Airflow on SQLite in the demo's folder, local Spark and this Python."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The progress of the night's application is in Airflow's log at this level.
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW_CONN_SPARK_DEFAULT": "spark://local%5B*%5D",
        # On two cores, starting a session for each step would take longer than the work.
        "LIME_APPLICATIONS": "1",
    }


def start(name: str, *words: str) -> Command:
    """Start a command; its output goes to a file in `.demo/logs`."""
    log = HOME / "logs" / f"{name.replace(' ', '-')}.log"
    return Command(name, words, ROOT, log, environment())


def job(name: str, *options: str) -> Command:
    """Start one of our jobs, as a data engineer would."""
    return start(name, sys.executable, f"jobs/{name}.py", "--config", CONFIG, *options)


def night(ds: str, key: str, name: str) -> Command:
    """Start the DAG for one night through Airflow's own runner."""
    conf = json.dumps({"night": ds, "run_key": key})
    return start(name, AIRFLOW, "dags", "test", "nightly_scoring", ds, "--conf", conf)


def repeat(ds: str, key: str, name: str) -> Command:
    """Start a night from the command line; Airflow is not needed for one, nor would it change the lists."""
    return start(
        name, sys.executable, "-m", "jobs.lime", "night", "--config", CONFIG, "--ds", ds, "--run-key", key
    )


def prepare(done: list[Command]) -> None:
    """Load the year, make Airflow's database and train the models.

    The whole year is loaded here: a night sees only earlier events, and its own ingest finds nothing.
    """
    loaded = HOME / "year-is-loaded"
    first = [] if loaded.exists() else [job("ingest_events", "--from", FIRST, "--to", LAST)]
    if not (HOME / "airflow" / "airflow.db").exists():
        first.append(start("airflow db migrate", AIRFLOW, "db", "migrate"))
    finish(first)
    loaded.touch()
    training = job("train_model", "--ds", NIGHTS[0])
    finish([training])
    done += [*first, training]


def score(done: list[Command]) -> Path:
    """Run the nights, and evaluate their model meanwhile; return the file of the second night's first lists.

    A Spark driver alone keeps little more than one core busy, so both take less time side by side.
    """
    key = f"demo-{int(time.time())}"  # each demo has a new run key, so the nights are computed again
    # The evaluation keeps its key: an unchanged bundle over an unchanged log reuses its lists.
    model = load_settings(ROOT / CONFIG).night.model
    evaluation = job("evaluate_model", "--ds", NIGHTS[0], "--model", model, "--run-key", "demo")
    try:
        return _score(done, key, evaluation)
    finally:
        evaluation.stop()  # if a night or a check of its lists failed


def _score(done: list[Command], key: str, evaluation: Command) -> Path:
    """Run the nights while the evaluation runs."""
    if free_memory() < ROOMY:
        finish([evaluation])
    before = HOME / "first-lists.parquet"
    for ds in NIGHTS:
        done.append(night(ds, key, f"night {ds}"))
        finish([done[-1]], meanwhile=[evaluation])
    check_night(HOME / "warehouse", NIGHTS[1], 100, INELIGIBLE).to_parquet(before)
    done.append(repeat(NIGHTS[1], f"{key}-again", f"night {NIGHTS[1]} again"))
    finish([done[-1]], meanwhile=[evaluation])
    finish([evaluation])
    done.append(evaluation)
    return before


def main() -> None:
    """Run all steps of the demo, in order."""
    started = time.monotonic()
    HOME.mkdir(exist_ok=True)
    done: list[Command] = []
    print("writing the purchases as daily drops", flush=True)
    write_drops(HOME / "raw")
    seconds = {"write drops": time.monotonic() - started}
    prepare(done)
    before = score(done)
    for ds in NIGHTS:
        check_night(HOME / "warehouse", ds, 100, INELIGIBLE)
    same_lists(HOME / "warehouse", NIGHTS[1], before)
    evaluated = HOME / "warehouse" / "apart" / f"{NIGHTS[0]}.evaluate-demo"
    for staged in evaluation_runs(evaluated):
        check_unseen(HOME / "warehouse", evaluated, staged, "new", NIGHTS[0])
    pages = [job("report_night", "--ds", ds) for ds in NIGHTS]
    finish(pages)
    seconds |= {each.name: each.seconds for each in done}
    print_report(load_settings(ROOT / CONFIG), NIGHTS[0], seconds)
    print(f"\nPages of the nights: {HOME / 'warehouse' / 'reports' / 'index.html'}")
    print(f"Tables: {HOME / 'warehouse'}")
    print(f"make demo took {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    if "--fresh" in sys.argv:
        shutil.rmtree(HOME, ignore_errors=True)
    main()
