"""A Spark standalone cluster of processes on this machine: a master, workers, and what runs on them.

Each daemon has a process group and folders of its own. Nothing here is a stand-in: these are
the classes that a real cluster runs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyspark

ROOT = Path(__file__).resolve().parent.parent.parent
SPARK = Path(pyspark.__file__).parent
HOST = "127.0.0.1"
PATIENCE = 900  # seconds that only a hang takes, on however slow and busy a machine


@dataclass
class Job:
    """A submitted driver. It writes to files: a pipe that nobody reads would stop it."""

    process: subprocess.Popen[bytes]
    out: Path
    error: Path

    @property
    def pid(self) -> int:
        """Of the process group, too."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self.process.returncode

    def poll(self) -> int | None:
        """Return code, None while it runs."""
        return self.process.poll()

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Wait for the end; what Python wrote (spark-submit makes its streams one), and the JVM."""
        self.process.wait(timeout)
        return self.out.read_text(errors="replace"), self.error.read_text(errors="replace")


@dataclass
class Cluster:
    """Daemons that are up; see `standalone`."""

    folder: Path
    port: int
    web: int
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def url(self) -> str:
        """For `--master`."""
        return f"spark://{HOST}:{self.port}"

    def state(self) -> dict[str, Any]:
        """What the master says of itself."""
        with urllib.request.urlopen(f"http://{HOST}:{self.web}/json/", timeout=30) as answer:
            state: dict[str, Any] = json.load(answer)
        return state

    def add_worker(self, *, cores: int, memory: str, gpu: str = "", host: str = HOST) -> None:
        """Start a worker daemon with folders of its own, and wait until the master knows it.

        `gpu` is an address that it declares; Spark schedules by what is declared. `host` is another of this
        machine's addresses where Spark must take the worker for another machine.
        """
        known = len(self.workers)
        home = self.folder / f"worker-{known}"
        home.mkdir(parents=True, exist_ok=True)
        options = ["-c", str(cores), "-m", memory, "-d", str(home / "work"), "--webui-port", "0"]
        env = {"SPARK_LOCAL_DIRS": str(home / "local")}
        if gpu:
            script = home / "find-gpus"
            script.write_text(f"""#!/bin/sh\necho '{{"name": "gpu", "addresses": ["{gpu}"]}}'\n""")
            script.chmod(0o755)
            found = {"amount": "1", "discoveryScript": str(script)}
            given = [f"-Dspark.worker.resource.gpu.{key}={value}" for key, value in found.items()]
            env["SPARK_WORKER_OPTS"] = " ".join(given)
        worker = self._start("worker.Worker", [*options, "-h", host, self.url], f"worker-{known}", env)
        self.workers.append(worker)
        wait_until(lambda: len(self.state()["workers"]) > known, "a worker did not register")

    def submit(self, script: str, *options: str, conf: Mapping[str, str] | None = None) -> Job:
        """`spark-submit` in client mode with the package; a process group of its own."""
        package = ROOT / "dist" / "lime.zip"
        settings = {
            "spark.executor.memory": "800m",
            "spark.executorEnv.PYTHONPATH": package.name,  # lands in the executor's working folder
            "spark.pyspark.python": sys.executable,
            **(conf or {}),
        }
        given = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
        jars = ",".join(str(jar) for jar in sorted((ROOT / ".jars").glob("delta-*.jar")))
        submit = [
            str(SPARK / "bin" / "spark-submit"), "--master", self.url, "--driver-memory", "1g",
            "--jars", jars, "--py-files", str(package), *given, script, *options,
        ]  # fmt: skip
        number = len(self.jobs)
        out, error = (self.folder / f"job-{number}.{stream}" for stream in ("out", "err"))
        with out.open("wb") as out_sink, error.open("wb") as error_sink:
            process = subprocess.Popen(
                submit, cwd=self.folder, stdout=out_sink, stderr=error_sink, start_new_session=True,
                env={**os.environ, "PYSPARK_DRIVER_PYTHON": sys.executable},
            )  # fmt: skip
        self.jobs.append(Job(process, out, error))
        return self.jobs[-1]

    def executors(self) -> list[psutil.Process]:
        """JVMs of running executors."""
        return self._descendants("CoarseGrainedExecutorBackend")

    def python_daemons(self) -> list[psutil.Process]:
        """Daemons from which Python workers are forked, one per executor."""
        daemons = self._descendants("pipelines.worker_daemon")
        return [d for d in daemons if (parent := d.parent()) and "java" in parent.name()]

    def _descendants(self, word: str) -> list[psutil.Process]:
        found = []
        for worker in self.workers:
            if worker.poll() is None:
                for process in psutil.Process(worker.pid).children(recursive=True):
                    try:
                        if any(word in part for part in process.cmdline()):
                            found.append(process)
                    except psutil.NoSuchProcess:
                        continue
        return found

    def _start(
        self, name: str, options: list[str], log: str, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{log}.log").open("wb") as sink:
            daemon = subprocess.Popen(
                [str(SPARK / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *options],
                cwd=self.folder, stdout=sink, stderr=sink, start_new_session=True,
                env={**os.environ, "SPARK_HOME": str(SPARK), "PYSPARK_PYTHON": sys.executable, **env},
            )  # fmt: skip
        self.daemons.append(daemon)
        return daemon

    def start_master(self) -> None:
        """Start the master, and wait until it answers."""
        options = ["--host", HOST, "--port", str(self.port), "--webui-port", str(self.web)]
        master = self._start("master.Master", options, "master", {})
        wait_until(lambda: master.poll() is None and _answers(self), "the master does not answer")

    def stop(self) -> None:
        """End every process that was started here, drivers and executors included."""
        for job in self.jobs:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.process.wait(timeout=30)
        for daemon in reversed(self.daemons):
            if daemon.poll() is None:
                for process in psutil.Process(daemon.pid).children(recursive=True):
                    _kill(process.pid)
                _kill(daemon.pid)
            daemon.wait(timeout=30)


@contextmanager
def standalone(folder: Path, *, workers: int = 2, cores: int = 1, memory: str = "1g") -> Iterator[Cluster]:
    """A cluster whose daemons live as long as the context."""
    cluster = Cluster(folder, _free_port(), _free_port())
    try:
        cluster.start_master()
        for _ in range(workers):
            cluster.add_worker(cores=cores, memory=memory)
        yield cluster
    finally:
        cluster.stop()


def wait_until(ready: Callable[[], bool], why: str, seconds: float = PATIENCE, every: float = 0.05) -> None:
    """Poll `every` so many seconds; fails with `why` when it takes longer."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{why} within {seconds} s"
        time.sleep(every)


def _answers(cluster: Cluster) -> bool:
    try:
        return bool(cluster.state()["status"] == "ALIVE")
    except (OSError, json.JSONDecodeError):  # not up yet, or up before its pages are
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
