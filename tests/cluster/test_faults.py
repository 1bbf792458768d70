"""Processes that die while a cluster scores a night do not change its lists.

Each fault happens after the first commit of the scoring step, when most units are still to do. Spark's event
log shows that the fault hit a process at work, not an idle one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from pipelines.ingest.load_entities import ingest_entity
from pipelines.night import STEPS
from pipelines.settings.settings import load_settings
from pipelines.steps import Job
from pipelines.store.leases import acquire_lease
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.cluster.disturbed_night import BUILD, REST, Built, Night, held_at_work, write_settings
from tests.cluster.standalone import PATIENCE, Cluster, SubmittedJob, standalone, wait_until
from tests.conftest import copy_tables
from tests.host import can_mount
from tests.nights import lists_of

pytestmark = pytest.mark.faults
ITEMS = 12_000  # with so many items and the slowest backend, each commit takes seconds


@pytest.fixture(scope="module")
def built(trained: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Publish a night over many items, and prepare its rerun up to scoring."""
    root = tmp_path_factory.mktemp("wide")
    items = pd.DataFrame({"item_id": range(ITEMS)})
    items["kind"] = [f"kind-{i % shop.KINDS}" for i in range(ITEMS)]
    items["price"] = [f"price-{i % 4}" for i in range(ITEMS)]
    copy_tables(Path(trained.settings.warehouse), root / "warehouse", ("events", "users"))
    shop.write_drop(root / "raw", "items", shop.FIRST, items)
    warehouse = Warehouse(trained.spark, load_settings(write_settings(root, trained, master="local[2]")))
    ingest_entity(warehouse, "items", [shop.FIRST])
    undisturbed = acquire_lease(warehouse, shop.NIGHT, "undisturbed")
    for name in (*BUILD, "score_candidates", *REST):
        STEPS[name](warehouse, undisturbed)
    rerun = acquire_lease(warehouse, shop.NIGHT, "disturbed")
    for name in BUILD:
        STEPS[name](warehouse, rerun)
    return Built(root, rerun, lists_of(warehouse))


@pytest.fixture
def cluster(package: None, tmp_path: Path) -> Iterator[Cluster]:
    """Start a new cluster for each fault."""
    (tmp_path / "cluster").mkdir()
    with standalone(tmp_path / "cluster") as running:
        yield running


def test_a_process_that_is_killed_changes_nothing(
    cluster: Cluster, trained: Warehouse, built: Built, tmp_path: Path
) -> None:
    """Kill Python workers, then an executor, then a machine: its worker daemon and everything it started."""
    night = Night(cluster, trained, built, tmp_path)
    job = night.score()

    def kill_python_workers() -> None:
        with held_at_work(cluster, night) as workers:
            for worker in workers:
                worker.kill()

    def kill_executor() -> None:
        with held_at_work(cluster, night):
            cluster.executors()[0].kill()

    def kill_machine() -> None:
        with held_at_work(cluster, night):
            daemon = psutil.Process(cluster.workers[0].pid)
            for process in [*daemon.children(recursive=True), daemon]:
                process.kill()

    for strike in (kill_python_workers, kill_executor, kill_machine):
        night.disturb(job, strike)
    job.finish()
    assert night.publish() == built.expected
    ends = [task["Task End Reason"] for task in night.events("SparkListenerTaskEnd")]
    assert any("Python worker exited" in str(end) for end in ends)
    assert len({end["Executor ID"] for end in ends if end["Reason"] == "ExecutorLostFailure"}) >= 2


@pytest.fixture
def two_hosts(package: None, tmp_path: Path) -> Iterator[Cluster]:
    """Start two workers on two addresses of this machine: Spark copies a stuck task only to another host."""
    (tmp_path / "cluster").mkdir()
    with standalone(tmp_path / "cluster", workers=0) as running:
        for host in ("127.0.0.1", "127.0.0.2"):
            running.add_worker(cores=1, memory="1g", host=host)
        yield running


def test_a_speculative_copy_of_a_stuck_task_changes_nothing(
    two_hosts: Cluster, trained: Warehouse, built: Built, tmp_path: Path
) -> None:
    cluster = two_hosts
    night = Night(cluster, trained, built, tmp_path)
    job = night.score({"spark.speculation": "true", "spark.speculation.quantile": "0.5"})

    def strike() -> None:
        with held_at_work(cluster, night) as workers:
            stuck = {worker.pid for worker in cluster.python_daemons()[0].children()}
            for worker in workers:
                if worker.pid not in stuck:
                    worker.resume()
            job.process.wait(timeout=PATIENCE)  # no task fails, but those of one executor never end

    night.disturb(job, strike)
    job.finish()
    assert night.publish() == built.expected
    copies = [task for task in night.events("SparkListenerTaskEnd") if task["Task Info"]["Speculative"]]
    assert any(task["Task End Reason"]["Reason"] == "Success" for task in copies)


def test_a_killed_driver_is_resumed_and_scores_only_what_is_missing(
    cluster: Cluster, trained: Warehouse, built: Built, tmp_path: Path
) -> None:
    night = Night(cluster, trained, built, tmp_path)
    job = night.score()
    night.disturb(job, lambda: os.killpg(job.pid, signal.SIGKILL), commits=4)  # half of the commits
    job.communicate()
    assert job.returncode == -signal.SIGKILL
    out = night.score().finish()
    (said,) = re.findall(r"^score_candidates (\{.*)$", out, re.MULTILINE)
    report = json.loads(said)
    assert report["policies"]["all"]["commits_reused"] >= 4
    started = (event["Properties"] for event in night.events("SparkListenerJobStart"))
    described = {properties.get("spark.job.description", "") for properties in started}
    assert any(
        "commits, about" in text and "s left" in text for text in described
    )  # the UI shows these descriptions
    assert night.publish() == built.expected


def test_a_driver_that_wakes_up_late_is_fenced(
    cluster: Cluster, trained: Warehouse, built: Built, tmp_path: Path
) -> None:
    night = Night(cluster, trained, built, tmp_path)
    job = night.score()
    night.disturb(job, lambda: os.killpg(job.pid, signal.SIGSTOP))
    newer = acquire_lease(night.warehouse, shop.NIGHT, "newer")
    os.killpg(job.pid, signal.SIGCONT)
    out = job.finish(1)
    assert f"was overtaken by run 'newer' (epoch {newer.epoch})" in out
    assert lists_of(night.warehouse) == built.expected


def test_a_driver_that_its_own_retry_overtook_stops_when_it_wakes_up(
    cluster: Cluster, trained: Warehouse, built: Built, tmp_path: Path
) -> None:
    night = Night(cluster, trained, built, tmp_path)
    job = night.score()
    night.disturb(job, lambda: os.killpg(job.pid, signal.SIGSTOP))
    STEPS[Job.SCORE_CANDIDATES](night.warehouse, night.run)  # this is the retry, with the same key
    assert night.publish() == built.expected
    staged = night.warehouse.version("staging")
    os.killpg(job.pid, signal.SIGCONT)
    out = job.finish(1)
    assert "was started again (attempt 2) while this one (attempt 1) slept" in out.splitlines()[-1]
    assert night.warehouse.version("staging") == staged
    assert lists_of(night.warehouse) == built.expected


def test_sigterm_ends_in_one_line_and_leaves_nothing_half_done(
    cluster: Cluster, trained: Warehouse, built: Built, tmp_path: Path
) -> None:
    night = Night(cluster, trained, built, tmp_path)

    def stop(receiver: str) -> str:
        job = night.score()
        night.disturb(job, lambda: group_of(job, receiver)[0].terminate())
        out, error = job.communicate()
        assert job.returncode == 128 + signal.SIGTERM, out[-2000:]
        assert "Traceback" not in out + error
        wait_until(lambda: not group_of(job), "something of the driver is left")
        assert lists_of(night.warehouse) == built.expected  # the lists of the night before
        return out

    stop("java")
    assert "stopped by SIGTERM; what is committed stays" in stop("python")  # its message goes through the JVM
    night.score().finish()
    assert night.publish() == built.expected


def group_of(job: SubmittedJob, word: str = "") -> list[psutil.Process]:
    """Return the running processes of a driver whose name contains `word`, oldest first."""
    running = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            alive = os.getpgid(process.pid) == job.pid and process.status() != psutil.STATUS_ZOMBIE
            if alive and word in process.name():
                running.append(process)
    return running


@pytest.mark.skipif(not can_mount(), reason="mounting a small disk needs CAP_SYS_ADMIN")
def test_a_full_disk_is_reported_and_a_rerun_completes(
    package: None, trained: Warehouse, built: Built, tmp_path: Path
) -> None:
    (tmp_path / "cluster").mkdir()
    with standalone(tmp_path / "cluster", workers=0) as cluster:
        disk = cluster.folder / "worker-0" / "local"
        disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
        try:
            cluster.add_worker(cores=1, memory="1g")
            night = Night(cluster, trained, built, tmp_path)
            job = night.score()
            # Fill the disk once the executor is at work: without free space it could not start.
            wait_until(lambda: bool(cluster.python_daemons()), "no Python worker")
            filler = disk / "filler"
            subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], check=False, capture_output=True)
            out = job.finish(1)
            last = out.splitlines()[-1]
            assert last.startswith("error: ")
            assert "no room" in last
            assert "127.0.0.1 executor" in last
            filler.unlink()
            night.score().finish()
            assert night.publish() == built.expected
        finally:
            cluster.stop()
            subprocess.run(["umount", "-l", str(disk)], check=True)
