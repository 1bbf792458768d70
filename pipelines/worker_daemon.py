"""A PySpark worker daemon that imports torch and the UDF bodies before it forks workers.

Importing them takes seconds. PySpark forks a worker per task slot from one daemon, so an
import in the daemon happens once per executor. `spark.python.daemon.module` names this
module; executors must have the project installed. Nothing here starts a thread: torch
starts its pool at first use, after the fork.
"""

from __future__ import annotations

from pyspark.daemon import manager

import pipelines.udfs.encode_items
import pipelines.udfs.pack_shards
import pipelines.udfs.reduce_states
import pipelines.udfs.score_users  # noqa: F401  # imported for the forked workers

if __name__ == "__main__":
    manager()
