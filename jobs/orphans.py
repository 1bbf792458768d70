"""A job whose Airflow task has died ends: nobody would hear of its result, and its retry is on its way.

A SIGKILL (of the worker, for want of memory say) reaches neither spark-submit nor the driver below it; both
would go on. So a driver that Airflow started watches the processes above it: the JVM of spark-submit, the
task, and the task's supervisor. Spark on a cluster's own driver (`cluster` deploy mode) has no such parents;
there Airflow's provider finds the driver again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import psutil

log = logging.getLogger(__name__)
UNDER_AIRFLOW = "AIRFLOW_CTX_DAG_RUN_ID"  # Airflow sets it for what a task starts
ABOVE = 3
SECONDS = 2.0


def end_with_submitter() -> None:
    """Under Airflow, send this process a SIGTERM as soon as one of those above it is gone."""
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
