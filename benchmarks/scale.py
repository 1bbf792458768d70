"""Score ten billion pairs through Spark, and measure the gain of a second worker: `make bench-scale`.

1. Our UDF in Spark and the bare engine score 10,240 users × 1,000,000 candidates with K = 500.
2. One worker of one core and two such workers, daemons of a standalone cluster, score the same users, in one
task
   or in two.

Ratios are taken within a round; the result is the median of 5 rounds.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import spark_job
from benchmarks.problem import CONFIG, Problem, make_problem
from benchmarks.report import ROOT, Row, publish, row
from tests.cluster.standalone import Cluster, standalone

LONG = 500  # K
ROUNDS = 5


def compare_workers(problem: Problem, users: int) -> list[Row]:
    """Compare the throughput of two workers of one core with one; driver and daemons share these cores."""
    subprocess.run(["bash", str(ROOT / "tools" / "package.sh")], check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix="lime-bench-") as name:
        folder = Path(name)
        task = spark_job.lay_out(problem, folder, users, LONG)
        (folder / "task.pickle").write_bytes(pickle.dumps(task))
        (folder / "cluster").mkdir()
        ratios = []
        with standalone(folder / "cluster", workers=2) as cluster:
            for _ in range(ROUNDS):
                one, two = (time_workers(cluster, folder, cores) for cores in (1, 2))
                ratios.append(one / two)
    return [row("two workers of one core / one", statistics.median(ratios), "x", ">= 1.7")]


def time_workers(cluster: Cluster, folder: Path, cores: int) -> float:
    """Return the seconds of one pass over all users.

    Args:
        cluster: the running cluster.
        folder: the folder of users, bank and task.
        cores: the cores, and so the workers, that the pass may use.
    """
    script = str(ROOT / "benchmarks" / "scale_driver.py")
    job = cluster.submit(script, str(folder), conf={"spark.cores.max": str(cores)})
    out, error = job.communicate(timeout=600)
    if job.returncode != 0:
        raise RuntimeError(out[-2000:] + error[-2000:])
    return float(out.split("seconds ", 1)[1].split()[0])


def main() -> int:
    """Measure both parts and publish the results."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--candidates", type=int, default=1_000_000)
    options.add_argument("--users", type=int, default=10_240)
    args = options.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    problem = make_problem(args.candidates, 1)
    rows = compare_workers(problem, args.users // 10)
    rows += spark_job.compare_job(problem, args.users, LONG, warm=False)
    about = (
        f"two cores; C = {args.candidates:,}, {args.users:,} users, L = {CONFIG.links}, F = {CONFIG.hidden}, "
        f"E = {CONFIG.dot}, K = {LONG}; workers compared on {args.users // 10:,} of the users"
    )
    publish("scale", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
