"""The end of a job whose Airflow task has died: nobody would read its result, and a retry will start soon.

A SIGKILL of the Airflow worker, for example because memory ran out, reaches neither spark-submit nor the
driver that it started, so both would go on. A driver that Airflow started therefore watches the processes
above it: the JVM of spark-submit, the task, and the task's supervisor. In `cluster` deploy mode the driver
has no such parents; Airflow's provider finds the driver again there.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import psutil

log = logging.getLogger(__name__)
UNDER_AIRFLOW = "AIRFLOW_CTX_DAG_RUN_ID"  # Airflow sets this variable for the processes of a task
ABOVE = 3  # processes above the driver that are watched
SECONDS = 2.0  # between two looks at them


def end_with_submitter() -> None:
    """Under Airflow, send this process a SIGTERM as soon as a process above it has ended."""
    if UNDER_AIRFLOW in os.environ:
        above = psutil.Process().parents()[:ABOVE]
        threading.Thread(target=_watch, args=(above,), name="orphans", daemon=True).start()


def _watch(above: list[psutil.Process]) -> None:
    while all(_lives(process) for process in above):
        time.sleep(SECONDS)
    log.error("the Airflow task above this job has died")
    os.kill(os.getpid(), signal.SIGTERM)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
