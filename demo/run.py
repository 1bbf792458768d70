"""Run the whole demo: `make demo`.

The demo writes drops, ingests them, trains a model, and runs the Airflow DAG for two nights, the second one
twice. It measures offline metrics as of the first night, and checks the lists outside Spark. At the end it
writes the pages of the nights and prints a report. Every step is a command that you could type; it is printed
before it runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from demo.check import check_night, check_unseen, evaluation_runs, same_lists
from demo.complete_journey import write_drops
from demo.report import print_report
from pipelines.settings.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
CONFIG = "conf/local.yaml"
FIRST, NIGHTS, LAST = "2017-01-01", ("2017-12-04", "2017-12-05"), "2017-12-31"
# The policy of the settings excludes these departments from the published lists.
INELIGIBLE = ("FUEL", "COUPON")


def environment() -> dict[str, str]:
    """Return an environment with Airflow on SQLite in the demo's folder, local Spark and this Python."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW_CONN_SPARK_DEFAULT": "spark://local%5B*%5D",
        # On two cores, starting a session for each step would take longer than the work.
        "LIME_APPLICATIONS": "1",
    }


def run(*command: str) -> float:
    """Print a command and run it in the project's folder; return its seconds.

    The output of the command goes to `.demo/demo.log`.

    Raises:
        SystemExit: the command failed; the message shows the end of its output.
    """
    print(f"$ {' '.join(command)}", flush=True)
    started = time.monotonic()
    log = HOME / "demo.log"
    with log.open("ab") as sink:
        start = sink.tell()
        code = subprocess.run(command, cwd=ROOT, env=environment(), stdout=sink, stderr=sink).returncode
    seconds = time.monotonic() - started
    if code:
        tail = log.read_bytes()[start:][-6000:].decode(errors="replace")
        sys.exit(f"{tail}\n{command[0]} ended with {code}; the whole output is in {log}")
    print(f"  {seconds:.0f} s", flush=True)
    return seconds


def job(name: str, *options: str) -> float:
    """Run one of our jobs, as a data engineer would."""
    return run(sys.executable, f"jobs/{name}.py", "--config", CONFIG, *options)


def night(ds: str, key: str) -> float:
    """Run the DAG for one night through Airflow's own runner."""
    airflow = str(Path(sys.executable).parent / "airflow")
    conf = json.dumps({"night": ds, "run_key": key})
    return run(airflow, "dags", "test", "nightly_scoring", ds, "--conf", conf)


def main() -> None:
    """Run all steps of the demo, in order."""
    started = time.monotonic()
    HOME.mkdir(exist_ok=True)
    (HOME / "demo.log").unlink(missing_ok=True)
    seconds = {"write drops": _timed(lambda: write_drops(HOME / "raw"))}
    loaded = HOME / "year-is-loaded"
    if not loaded.exists():
        # The whole year is loaded here: a night sees only earlier events, and its own ingest finds nothing.
        seconds["ingest_events"] = job("ingest_events", "--from", FIRST, "--to", LAST)
        loaded.touch()
    seconds["train_model"] = job("train_model", "--ds", NIGHTS[0])
    airflow = str(Path(sys.executable).parent / "airflow")
    if not (HOME / "airflow" / "airflow.db").exists():
        seconds["airflow db migrate"] = run(airflow, "db", "migrate")
    key = f"demo-{int(time.time())}"  # each demo has a new run key, so the nights are computed again
    seconds[f"night {NIGHTS[0]}"] = night(NIGHTS[0], key)
    # The evaluation keeps its key: an unchanged bundle over an unchanged log reuses its lists.
    seconds["evaluate_model"] = job("evaluate_model", "--ds", NIGHTS[0], "--run-key", "demo")
    seconds[f"night {NIGHTS[1]}"] = night(NIGHTS[1], key)
    before = HOME / "first-lists.parquet"
    check_night(HOME / "warehouse", NIGHTS[1], 100, INELIGIBLE).to_parquet(before)
    seconds[f"night {NIGHTS[1]} again"] = night(NIGHTS[1], f"{key}-again")
    for ds in NIGHTS:
        check_night(HOME / "warehouse", ds, 100, INELIGIBLE)
    same_lists(HOME / "warehouse", NIGHTS[1], before)
    evaluated = HOME / "warehouse" / "apart" / f"{NIGHTS[0]}.evaluate-demo"
    for staged in evaluation_runs(evaluated):
        check_unseen(HOME / "warehouse", evaluated, staged, "new", NIGHTS[0])
    for ds in NIGHTS:
        seconds[f"page of {ds}"] = job("report_night", "--ds", ds)
    print_report(load_settings(ROOT / CONFIG), NIGHTS[0], seconds)
    print(f"\nPages of the nights: {HOME / 'warehouse' / 'reports' / 'index.html'}")
    print(f"Tables: {HOME / 'warehouse'}")
    print(f"make demo took {time.monotonic() - started:.0f} s")


def _timed(work: object) -> float:
    started = time.monotonic()
    work()  # type: ignore[operator]
    return time.monotonic() - started


if __name__ == "__main__":
    if "--fresh" in sys.argv:
        shutil.rmtree(HOME, ignore_errors=True)
    main()
