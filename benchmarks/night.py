"""Forecast a night of billions of pairs, kill it at half, and run it again: `make bench-night`.

There are 80,000 candidates, and as many users with three events each as two cores of this machine score in
about two minutes. The model has the benchmark's sizes, and the first pass runs in fp32. A night is one job
(`run_steps`: bank, states, scoring) in one process, as a scheduler starts it. Each round works on copies of a
warehouse.

1. The forecast of `plan_night` is compared with the seconds that scoring then takes.
2. The night is killed (SIGKILL) once half of its users are staged, and run again. The wall-clock time of the
   rerun, with the start of the JVM, is compared with that of an undisturbed night. The rerun finds the bank,
   the states and the staged users done.

There are 5 rounds, which take about 45 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from deltalake import DeltaTable
from pyspark.sql import functions as F

from benchmarks.problem import CONFIG
from benchmarks.report import ROOT, Row, publish, row
from lime_model.scoring.backends.choose import make_backend
from pipelines.ingest.load_days import ingest_days
from pipelines.ingest.load_entities import ingest_entity
from pipelines.learn.train import train_models
from pipelines.models.bundles import fetch_bundle
from pipelines.models.champions import need_champion
from pipelines.score.calibration import Sizes, measure_speed
from pipelines.settings.settings import load_settings
from pipelines.store.event_log import with_new_columns
from pipelines.store.session import open_session
from pipelines.store.tables import Warehouse
from synthetic import shop

ITEMS, EVENTS = 80_000, 3  # events of each user that is added to the shop's own users
CORES, SECONDS = 2, 120.0
ROUNDS = 5
KEY = "night"  # the run key of every run


def write_settings(root: Path) -> Path:
    """Write the shop's settings at the benchmark's sizes; return the file."""
    raw = shop.settings(root, backend="native-fp32", k=100, buckets=16, units_per_commit=2)
    sizes = {"links": CONFIG.links, "width": CONFIG.width, "hidden": CONFIG.hidden, "dot": CONFIG.dot}
    model = raw["models"][0]
    model["config"] |= sizes
    model["train"] |= {"steps": 5, "link_steps": 2}
    raw["models"] = [model]
    conf = raw["spark"]["conf"]
    # These options let the tests' small queries start fast, but they make large queries slow.
    for key in (
        "spark.sql.codegen.wholeStage",
        "spark.sql.codegen.factoryMode",
        "spark.sql.adaptive.enabled",
        "spark.buffer.pageSize",
    ):
        del conf[key]
    conf |= {"spark.driver.memory": "4g", "spark.sql.shuffle.partitions": "4"}
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def fill(root: Path, config: Path) -> int:
    """Ingest and train on the shop, then add many users and items; return the number of users."""
    shop.write_shop(root / "raw")
    items = pd.DataFrame({"item_id": range(ITEMS)})
    items["kind"] = [f"kind-{i % shop.KINDS}" for i in range(ITEMS)]
    items["price"] = [f"price-{i % 4}" for i in range(ITEMS)]
    spark = open_session(load_settings(str(config)), "bench-night")
    warehouse = Warehouse(spark, load_settings(str(config)))
    ingest_days(warehouse, shop.FIRST, shop.LAST)
    train_models(warehouse, shop.NIGHT, ["mha"])
    shop.write_drop(root / "raw", "items", shop.FIRST, items)
    ingest_entity(warehouse, "items", [shop.FIRST])
    stamp = F.timestamp_seconds(F.unix_timestamp(F.lit(shop.NIGHT).cast("timestamp")) - 1 - F.col("id"))
    day, label = F.to_date(stamp), F.lit(None).cast("double")
    users = affordable_users(fetch_bundle(warehouse, "mha", need_champion(warehouse, "mha", shop.NIGHT)))
    events = spark.range(users * EVENTS).select(
        (1_000_000 + F.floor(F.col("id") / EVENTS)).alias("user_id"), (F.col("id") % ITEMS).alias("item_id"),
        stamp.alias("event_ts"), F.lit("purchase").alias("event_type"),
        F.col("id").cast("string").alias("session_id"),
        label.alias("label"), day.alias("drop_ds"), day.alias("ds"),
    )  # fmt: skip
    warehouse.append("events", with_new_columns(events))
    spark.stop()
    return users


def affordable_users(bundle: Path) -> int:
    """Return how many users `CORES` score against all items in about `SECONDS`, in whole thousands."""
    torch.set_num_threads(1)
    speed = measure_speed(
        bundle, make_backend("native-fp32", "cpu"), Sizes(ITEMS // 4, history=EVENTS, k=100), 2.0
    )
    return max(1, round(CORES * speed.pairs_per_second * SECONDS / ITEMS / 1000)) * 1000


def start(config: Path, job: str, *options: str) -> subprocess.Popen[str]:
    """Start a job in a new process group.

    Args:
        config: the settings file.
        job: the name of the job.
        options: further options of its command line.
    """
    command = [sys.executable, f"jobs/{job}.py", "--config", str(config)]
    return subprocess.Popen(
        [*command, "--ds", shop.NIGHT, "--run-key", KEY, *options],
        cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def finish(job: subprocess.Popen[str], step: str) -> dict[str, Any]:
    """Wait for a job that must succeed; return the manifest of one of its steps."""
    out, _ = job.communicate(timeout=900)
    if job.returncode != 0:
        raise RuntimeError(f"{step} ended with {job.returncode}: {out[-2000:]}")
    lines = [line for line in out.splitlines() if line.startswith(f"{step} {{")]
    manifest: dict[str, Any] = json.loads(lines[-1].removeprefix(step))
    return manifest


def run_night(config: Path) -> tuple[float, dict[str, Any]]:
    """Run a night; return its seconds and the manifest of its scoring."""
    started = time.monotonic()
    manifest = finish(start_night(config), "score_candidates")
    return time.monotonic() - started, manifest


def start_night(config: Path) -> subprocess.Popen[str]:
    """Start one job that builds bank and states and scores."""
    return start(
        config, "run_steps", "--steps", "build_candidate_bank", "build_link_states", "score_candidates"
    )


def kill_at_half(config: Path, warehouse: Path, users: int) -> None:
    """Start the night and kill it once half of the users are staged.

    Args:
        config: the settings file.
        warehouse: the folder of its warehouse.
        users: the number of users of the night.
    """
    job = start_night(config)
    staged = 0
    while staged < users // 2:
        if job.poll() is not None:
            raise RuntimeError("the night ended before it was killed")
        time.sleep(0.1)
        commits = (warehouse / "staging" / "_delta_log").glob("*.json")
        if any(commits):  # the folder exists before its first commit
            staged = DeltaTable(str(warehouse / "staging")).to_pyarrow_dataset().count_rows()
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()


def copy(root: Path, name: str) -> Path:
    """Copy the warehouse; return the settings file of the copy."""
    shutil.copytree(root / "warehouse", root / name)
    raw = yaml.safe_load((root / "settings.yaml").read_text())
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw | {"warehouse": str(root / name)}))
    return path


def compare(root: Path, rounds: int, users: int) -> list[Row]:
    """Compare the forecast with the actual time, and the rerun after a kill with an undisturbed night.

    Args:
        root: the folder of the warehouse and its settings.
        rounds: the number of rounds.
        users: the number of users of the night.
    """
    forecasts, reruns, lengths, nights = [], [], [], []
    for number in range(rounds):
        config = copy(root, "whole")
        finish(start(config, "plan_night"), "plan_night")
        whole, manifest = run_night(config)
        nights.append(whole)
        forecast = manifest["forecast"]
        forecasts.append(forecast["predicted_seconds"] / forecast["actual_seconds"])
        lengths.append(forecast["actual_seconds"])
        config = copy(root, "killed")
        kill_at_half(config, root / "killed", users)
        rerun, manifest = run_night(config)
        if not manifest["policies"]["all"]["commits_reused"]:
            raise RuntimeError("the rerun reused no commit of the killed run")
        reruns.append(rerun / whole)
        print(f"round {number}: forecast {forecasts[-1]:.2f}, rerun {rerun:.0f} / {whole:.0f} s", flush=True)
        for name in ("whole", "killed"):
            shutil.rmtree(root / name)
    return [
        row("scoring of a night, median", statistics.median(lengths), "s", ">= 60"),
        row("plan_night's seconds / the actual ones, median", statistics.median(forecasts), "x"),
        row("off by at most, of all rounds", max(abs(ratio - 1) for ratio in forecasts), "share", "<= 0.3"),
        row("an undisturbed night, median", statistics.median(nights), "s"),
        row(
            "run again after a kill at half / an undisturbed night", statistics.median(reruns), "x", "<= 0.6"
        ),
    ]


def main() -> int:
    """Measure all rounds and publish the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="number of rounds; fewer than 5 publish nothing"
    )
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lime-bench-") as name:
        root = Path(name)
        config = write_settings(root)
        users = fill(root, config)
        print(f"{users:,} users x {ITEMS:,} candidates", flush=True)
        rows = compare(root, options.rounds, users)
    about = (
        f"two cores; {users:,} users x {ITEMS:,} candidates, L = {CONFIG.links}, F = {CONFIG.hidden}, "
        f"E = {CONFIG.dot}, K = 100, 8 commits"
    )
    if options.rounds >= ROUNDS:
        publish("night", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
