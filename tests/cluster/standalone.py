"""A Spark standalone cluster of processes on this machine: a master, workers, and their applications.

Each daemon has its own process group and its own folders. Nothing here is a mock: the daemons run the classes
of a real cluster.
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
PATIENCE = 900  # seconds that only a hanging process takes, even on a slow and busy machine


@dataclass
class SubmittedJob:
    """A submitted driver, which writes to files because an unread pipe would stop it."""

    process: subprocess.Popen[bytes]
    out: Path
    error: Path

    @property
    def pid(self) -> int:
        """The id of the process and of its group."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The return code, or None while the driver runs."""
        return self.process.returncode

    def poll(self) -> int | None:
        """Return the return code, or None while the driver runs."""
        return self.process.poll()

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Wait for the end; return the output of Python, whose streams spark-submit joins, and of the JVM."""
        self.process.wait(timeout)
        return self.out.read_text(errors="replace"), self.error.read_text(errors="replace")

    def finish(self, code: int = 0) -> str:
        """Wait for the end; return the output of Python.

        Args:
            code: the return code that is expected.

        Raises:
            AssertionError: the driver ended with another code; the message holds the end of both streams.
        """
        out, error = self.communicate()
        assert self.returncode == code, f"{error[-2000:]}\n{out[-4000:]}"
        return out


@dataclass
class Cluster:
    """A running cluster; see `standalone`."""

    folder: Path
    port: int
    web: int
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    jobs: list[SubmittedJob] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL for the option `--master`."""
        return f"spark://{HOST}:{self.port}"

    def state(self) -> dict[str, Any]:
        """Return the state that the master reports."""
        with urllib.request.urlopen(f"http://{HOST}:{self.web}/json/", timeout=30) as answer:
            state: dict[str, Any] = json.load(answer)
        return state

    def add_worker(self, *, cores: int, memory: str, gpu: str = "", host: str = HOST) -> None:
        """Start a worker daemon with its own folders, and wait until the master knows it.

        Args:
            cores: the cores of the worker.
            memory: its memory, such as "1g".
            gpu: the address of a GPU that it declares; Spark schedules by what is declared.
            host: another address of this machine, if Spark must treat the worker as another machine.
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

    def submit(self, script: str, *options: str, conf: Mapping[str, str] | None = None) -> SubmittedJob:
        """Submit a driver in client mode with the package, in a new process group.

        Args:
            script: the file of the driver.
            options: the options of its command line.
            conf: further options of Spark.
        """
        package = ROOT / "dist" / "lime.zip"
        settings = {
            "spark.executor.memory": "800m",
            "spark.executorEnv.PYTHONPATH": package.name,  # its path in the working folder
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
        self.jobs.append(SubmittedJob(process, out, error))
        return self.jobs[-1]

    def executors(self) -> list[psutil.Process]:
        """Return the JVMs of the running executors."""
        return self._descendants("CoarseGrainedExecutorBackend")

    def python_daemons(self) -> list[psutil.Process]:
        """Return the daemons from which Python workers are forked, one for each executor."""
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
    """Run a cluster whose daemons live as long as the context.

    Args:
        folder: the folder of its logs and files.
        workers: the number of workers.
        cores: the cores of each worker.
        memory: the memory of each worker.
    """
    cluster = Cluster(folder, _free_port(), _free_port())
    try:
        cluster.start_master()
        for _ in range(workers):
            cluster.add_worker(cores=cores, memory=memory)
        yield cluster
    finally:
        cluster.stop()


def wait_until(ready: Callable[[], bool], why: str, seconds: float = PATIENCE, every: float = 0.05) -> None:
    """Poll until a condition holds.

    Args:
        ready: the condition.
        why: the message of the failure if it does not hold in time.
        seconds: the time limit.
        every: seconds between two polls.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{why} within {seconds} s"
        time.sleep(every)


def _answers(cluster: Cluster) -> bool:
    try:
        return bool(cluster.state()["status"] == "ALIVE")
    except (OSError, json.JSONDecodeError):  # the master has not started, or has started before its pages
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
