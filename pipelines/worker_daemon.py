"""A PySpark worker daemon that has torch loaded before it forks.

Importing torch takes seconds of a core; PySpark forks a worker per task slot from one
daemon, so loading it there pays once per executor. `spark.python.daemon.module` names this
module; executors must have the project installed. Nothing here starts a thread: torch
starts its pool at first use, after the fork.
"""

from __future__ import annotations

import torch  # noqa: F401  # loaded for the forked workers
from pyspark.daemon import manager

if __name__ == "__main__":
    manager()
