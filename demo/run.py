"""The demo, end to end: `make demo`.

Drops -> ingest -> train -> the Airflow DAG for two nights, the last one twice; offline metrics
as of the first -> checks from outside Spark -> what a person sees, here and as one HTML page.
Every step is a command you could type; it is printed before it runs.
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
from demo.report import write_report

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
CONFIG = "conf/local.yaml"
FIRST, NIGHTS, LAST = "2017-01-01", ("2017-12-04", "2017-12-05"), "2017-12-31"
# The same policy that the settings publish under: nothing of these departments.
INELIGIBLE = ("FUEL", "COUPON")


def environment() -> dict[str, str]:
    """Airflow on SQLite in the demo's folder; Spark local; this Python for drivers and workers."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW_CONN_SPARK_DEFAULT": "spark://local%5B*%5D",
        # Two cores: three session starts a night would outweigh the work.
        "LIME_APPLICATIONS": "1",
    }


def run(*command: str) -> float:
    """Print and run a command in the project's folder, its output in `.demo/demo.log`; returns seconds.

    Raises:
        SystemExit: it failed; the end of its output is shown.
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
    """One of our jobs, as a data engineer would run it."""
    return run(sys.executable, f"jobs/{name}.py", "--config", CONFIG, *options)


def night(ds: str, key: str) -> float:
    """One DAG run, through Airflow's own runner."""
    airflow = str(Path(sys.executable).parent / "airflow")
    conf = json.dumps({"night": ds, "run_key": key})
    return run(airflow, "dags", "test", "nightly_scoring", ds, "--conf", conf)


def main() -> None:
    """Everything, in order."""
    started = time.monotonic()
    HOME.mkdir(exist_ok=True)
    (HOME / "demo.log").unlink(missing_ok=True)
    seconds = {"write drops": _timed(lambda: write_drops(HOME / "raw"))}
    loaded = HOME / "year-is-loaded"
    if not loaded.exists():
        # The whole year at once: a night sees only what lies before it, and its own ingest finds nothing new.
        seconds["ingest_events"] = job("ingest_events", "--from", FIRST, "--to", LAST)
        loaded.touch()
    seconds["train_model"] = job("train_model", "--ds", NIGHTS[0])
    airflow = str(Path(sys.executable).parent / "airflow")
    if not (HOME / "airflow" / "airflow.db").exists():
        seconds["airflow db migrate"] = run(airflow, "db", "migrate")
    key = f"demo-{int(time.time())}"  # a new run each time: the nights are computed, not looked up
    seconds[f"night {NIGHTS[0]}"] = night(NIGHTS[0], key)
    # Under one key, an unchanged bundle over an unchanged log keeps its lists.
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
    page = write_report(HOME, NIGHTS, f"{NIGHTS[0]}.evaluate-demo", seconds)
    print(f"\nThe same with plots: {page}\nTables: {HOME / 'warehouse'}")
    print(f"make demo took {time.monotonic() - started:.0f} s")


def _timed(work: object) -> float:
    started = time.monotonic()
    work()  # type: ignore[operator]
    return time.monotonic() - started


if __name__ == "__main__":
    if "--fresh" in sys.argv:
        shutil.rmtree(HOME, ignore_errors=True)
    main()
