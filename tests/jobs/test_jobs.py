"""The jobs as processes: their exit codes, one-line errors, and kills in the middle of their work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from deltalake import DeltaTable

from jobs.command import exit_behind
from lime_model.train.fit import fit_variants
from pipelines.learn.training_log import read_source
from pipelines.night import STEPS
from pipelines.settings.settings import load_settings
from pipelines.store.leases import Run, acquire_lease
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import PATIENCE, SubmittedJob, wait_until
from tests.conftest import copy_shop
from tests.nights import full_night, lists_of

ROOT = Path(__file__).resolve().parent.parent.parent


def start(job: str, *options: str) -> subprocess.Popen[str]:
    """Start a job in a new process group, which includes its JVM and Python workers."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
    )  # fmt: skip


def test_mistakes_end_with_one_line_and_exit_3(tmp_path: Path) -> None:
    job = start("score_candidates", "--config", str(tmp_path / "none.yaml"), "--ds", shop.NIGHT)
    out, error = job.communicate(timeout=60)
    assert job.returncode == 3
    assert out == ""
    assert (
        error.strip()
        == f"error: no settings file at {tmp_path / 'none.yaml'}; name another one, or write one "
        "with lime init DROPS"
    )


def test_the_command_line_is_checked(tmp_path: Path) -> None:
    job = start("score_candidates", "--config", "x", "--ds", "yesterday")
    _, error = job.communicate(timeout=60)
    assert job.returncode == 2
    assert "'yesterday' is not a date like 2017-12-04" in error


def test_a_sigterm_is_reported_whatever_its_cleanup_raises() -> None:
    error = OSError("the JVM was cut off in a call")
    error.__context__ = SystemExit(143)
    left = exit_behind(error)
    assert left is not None
    assert left.code == 143
    assert exit_behind(OSError("alone")) is None


@pytest.mark.faults
def test_a_killed_scoring_job_leaves_the_lists_and_its_retry_completes(
    ready: Warehouse, tmp_path: Path
) -> None:
    ds = "2024-05-05"
    warehouse = copy_shop(ready, tmp_path, units_per_commit=2)
    full_night(warehouse, "before", ds)
    expected = lists_of(warehouse, ds)
    run = acquire_lease(warehouse, ds, "killed")
    for name in ("build_candidate_bank", "build_link_states"):
        STEPS[name](warehouse, run)
    options = ("--config", str(tmp_path / "settings.yaml"), "--ds", ds, "--run-key", "killed")
    job = start("score_candidates", *options)
    staged = wait_for_commit(warehouse, run.run_id, job)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait(timeout=60)
    assert 0 < staged < shop.USERS  # the job died when some users were staged
    assert lists_of(warehouse, ds) == expected  # readers saw no change
    retry = start("score_candidates", *options)
    out, error = retry.communicate(timeout=PATIENCE)
    assert retry.returncode == 0, error[-2000:]
    assert '"commits_reused": 1' in out  # staged users are not scored again
    for name in ("verify_night", "audit_recommendations", "publish_recommendations"):
        STEPS[name](warehouse, run)
    assert lists_of(warehouse, ds) == expected  # the lists are the same, bit for bit
    table = DeltaTable(warehouse.path("recommendations")).to_pyarrow_table(
        filters=[("ds", "=", date.fromisoformat(ds))]
    )
    assert set(table["run_id"].to_pylist()) == {run.run_id}


@pytest.mark.faults
def test_a_driver_whose_jvm_is_killed_says_so_and_its_retry_completes(trained: Warehouse) -> None:
    ds = "2024-05-06"
    full_night(trained, "before", ds)
    expected = lists_of(trained, ds)
    config = str(Path(trained.settings.drops).parent / "settings.yaml")
    steps = [name for name in STEPS if name != "ingest_events"]
    options = ("--config", config, "--ds", ds, "--run-key", "orphaned", "--steps", *steps)
    job = start("run_steps", *options)
    run = Run(ds, "orphaned", 2)
    wait_for_commit(trained, run.run_id, job)
    for process in psutil.Process(job.pid).children():
        process.kill()  # this is spark-submit, which has become the JVM
    out, error = job.communicate(timeout=60)
    assert job.returncode == 1, out + error
    # The line is not always the last one: PySpark's thread for accumulators may report an error, too.
    said = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert said[0].startswith("error: the JVM of this driver ended")
    assert lists_of(trained, ds) == expected
    _, error = (retry := start("run_steps", *options)).communicate(timeout=PATIENCE)
    assert retry.returncode == 0, error[-2000:]
    assert lists_of(trained, ds) == expected


@pytest.mark.faults
def test_a_killed_training_goes_on_and_ends_in_the_same_model(trained: Warehouse, tmp_path: Path) -> None:
    raw = shop.settings(Path(trained.settings.drops).parent) | {"bundles": str(tmp_path / "bundles")}
    raw["models"][0]["train"] |= {"steps": 60, "link_steps": 150}
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(raw))
    options = ("--config", str(config), "--ds", shop.NIGHT, "--model", "mha")
    left = tmp_path / "bundles" / "mha.training" / "towers.safetensors"
    job = start("train_model", *options)
    while not left.exists():
        assert job.poll() is None, job.communicate()[1][-2000:]
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait(timeout=60)
    assert not (tmp_path / "bundles" / "mha").exists()
    out, error = start("train_model", *options).communicate(timeout=PATIENCE)
    assert "towers: training continues after step 60" in error, error[-2000:]
    assert not left.parent.exists()
    settings = load_settings(str(config)).model("mha")
    (whole,) = fit_variants([settings.recipe], shop.NIGHT, read_source(trained, shop.NIGHT))
    for mine, undisturbed in zip(report_of(out)["mha"]["curve"], whole.metrics["curve"], strict=True):
        assert mine == pytest.approx(undisturbed, rel=1e-4)


@pytest.mark.faults
def test_a_job_whose_airflow_task_is_killed_ends(trained: Warehouse) -> None:
    """Under Airflow, a supervisor, a task and spark-submit are above a driver; here they are shells."""
    config = str(Path(trained.settings.drops).parent / "settings.yaml")
    job = (
        f"{sys.executable} {ROOT / 'jobs' / 'run_steps.py'} --config {config} --ds 2024-05-09 --run-key left"
    )
    steps = " ".join(name for name in STEPS if name not in ("ingest_events", "publish_recommendations"))
    shells = f'sh -c "{job} --steps {steps} & wait" & wait'
    supervisor = subprocess.Popen(
        ["sh", "-c", shells], stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "AIRFLOW_CTX_DAG_RUN_ID": "night"},
    )  # fmt: skip
    assert supervisor.stdout is not None

    def below() -> list[psutil.Process]:
        return psutil.Process(supervisor.pid).children(recursive=True)

    leases = Path(trained.path("leases"))

    def at_work() -> bool:
        there = (leases / "_delta_log" / f"{0:020d}.json").exists()
        return there and "left" in DeltaTable(leases).to_pyarrow_table()["run_key"].to_pylist()

    wait_until(at_work, "the driver does not begin")
    left = below()
    supervisor.kill()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []


def test_log_lines_are_json_with_job_and_night(tmp_path: Path) -> None:
    code = (
        "import logging\n"
        "from jobs.logs import start_logs\n"
        "from structlog.contextvars import bind_contextvars\n"
        "start_logs(job='score_candidates', night='2024-05-01')\n"
        "logging.getLogger('pipelines.store.progress').info('%d of %d', 1, 2)\n"
        "bind_contextvars(run='2024-05-01.3')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: logging.getLogger('x').exception('that is a bug')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    stamp = first.pop("timestamp")
    assert stamp.endswith("Z")
    assert first == {
        "event": "1 of 2", "logger": "pipelines.store.progress", "level": "info", "job": "score_candidates",
        "night": "2024-05-01",
    }  # fmt: skip
    assert (second["run"], second["level"], second["event"]) == ("2024-05-01.3", "error", "that is a bug")
    assert "ZeroDivisionError" in second["exception"]


def report_of(out: str) -> dict[str, Any]:
    """Return the report that a training job printed."""
    line = next(line for line in out.splitlines() if line.startswith("train_model {"))
    found: dict[str, Any] = json.loads(line.removeprefix("train_model "))
    return found


def wait_for_commit(warehouse: Warehouse, run_id: str, job: subprocess.Popen[str] | SubmittedJob) -> int:
    """Wait for the next commit of a run; return the number of users staged by then."""
    deadline = time.monotonic() + PATIENCE
    before = DeltaTable(warehouse.path("staging")).version()
    while time.monotonic() < deadline:
        assert job.poll() is None, job.communicate()[1][-2000:]
        if DeltaTable(warehouse.path("staging")).version() > before:
            table = DeltaTable(warehouse.path("staging")).to_pyarrow_table(filters=[("run_id", "=", run_id)])
            return table.num_rows
        time.sleep(0.1)
    raise AssertionError(f"no commit within {PATIENCE} s")
