"""A night on a cluster that tests disturb: its warehouse, its scoring job, and the log of that job."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from pipelines.night import STEPS
from pipelines.settings.settings import load_settings
from pipelines.store.leases import Run
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.standalone import ROOT, Cluster, SubmittedJob
from tests.jobs.test_jobs import wait_for_commit
from tests.nights import Lists, lists_of

BUILD, REST = (
    ["build_candidate_bank", "build_link_states"],
    ["verify_night", "audit_recommendations", "publish_recommendations"],
)


class Built(NamedTuple):
    """A warehouse with many items and a published night, and a rerun of it that is ready for scoring."""

    root: Path
    run: Run
    expected: Lists


def write_settings(root: Path, trained: Warehouse, master: str | None) -> Path:
    raw = shop.settings(root, backend="reference", buckets=16, units_per_commit=2, certificate_users=8) | {
        "bundles": trained.settings.bundles,
        "audits": {"max_top_share": 1},  # the lists of 40 users name less than 1 % of so many items
    }
    raw["spark"]["master"] = master
    raw["spark"]["conf"]["spark.sql.shuffle.partitions"] = "2"
    path = root / f"settings-{'local' if master else 'cluster'}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


class Night:
    """The prepared rerun, on a cluster and in a copy of its warehouse; faults happen at its commits."""

    def __init__(self, cluster: Cluster, trained: Warehouse, built: Built, root: Path) -> None:
        self.cluster, self.run, self.log = cluster, built.run, root / "events"
        shutil.copytree(built.root / "warehouse", root / "warehouse")
        self.warehouse = Warehouse(trained.spark, load_settings(write_settings(root, trained, "local[2]")))
        self.config = write_settings(root, trained, None)
        self.log.mkdir()

    def score(self, conf: Mapping[str, str] | None = None) -> SubmittedJob:
        """Submit the scoring step."""
        options = ("--config", str(self.config), "--ds", shop.NIGHT, "--run-key", self.run.key)
        events = {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": f"file:{self.log}",
            "spark.eventLog.compress": "false",
        }
        script = str(ROOT / "jobs" / "run_steps.py")
        return self.cluster.submit(
            script,
            *options,
            "--steps",
            "score_candidates",
            conf={**events, "spark.task.maxFailures": "8", **(conf or {})},
        )

    def disturb(self, job: SubmittedJob, strike: Callable[[], None], commits: int = 1) -> None:
        """Call `strike` when so many of the eight commits are there."""
        for _ in range(commits):
            staged = wait_for_commit(self.warehouse, self.run.run_id, job)
        assert 0 < staged < shop.USERS
        strike()

    def publish(self) -> Lists:
        """Certify and publish the scored lists; return them."""
        for name in REST:
            STEPS[name](self.warehouse, self.run)
        return lists_of(self.warehouse)

    def logged(self) -> int:
        """Return the bytes of Spark's event logs."""
        return sum(path.stat().st_size for path in self.log.rglob("*") if path.is_file())

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the entries of one kind in Spark's event logs."""
        lines = [
            line for path in self.log.rglob("*") if path.is_file() for line in path.open(errors="replace")
        ]
        found = (json.loads(line) for line in lines if f'"Event":"{kind}"' in line)
        return list(found)


@contextmanager
def held_at_work(cluster: Cluster, night: Night) -> Iterator[list[psutil.Process]]:
    """Suspend the Python workers of running tasks, so that a fault hits processes at work.

    Spark writes its event log as jobs and stages start and end; the log stops growing when all tasks wait.
    """
    held: dict[int, psutil.Process] = {}
    size, since = -1, time.monotonic()
    while time.monotonic() - since < 3:
        for worker in (worker for daemon in cluster.python_daemons() for worker in daemon.children()):
            if worker.pid not in held:
                worker.suspend()
                held[worker.pid] = worker
        time.sleep(0.05)
        if night.logged() != size:
            size, since = night.logged(), time.monotonic()
    yield list(held.values())
    for worker in held.values():
        with suppress(psutil.NoSuchProcess):  # Spark ends the worker whose copy was faster
            worker.resume()
