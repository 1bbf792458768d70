"""Derive what Spark needs to know of one machine and its data, where the settings say nothing about it.

Only sessions on this machine (`local[…]`) are derived: a cluster, spark-submit and Airflow bring their own
configuration. What the settings or Spark's own `spark-defaults.conf` say always wins.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
import pyspark

from pipelines.settings.base import local_path
from pipelines.settings.settings import Settings

GIB: Final = 1 << 30
LIMIT_OF_GROUP: Final = Path("/sys/fs/cgroup/memory.max")  # of a container
LEAST_HEAP, MOST_HEAP = 1 * GIB, 32 * GIB
HEAP_SHARE: Final = 0.4  # of the machine's memory; Python's workers and the pages of files take the rest
START_HEAP: Final = 2 * GIB  # what Spark and Delta need with hardly any data
UNPACKED: Final = 4  # times that packed columns grow in memory
PARTITION: Final = 64 << 20  # bytes of a shuffle partition
MOST_PARTITIONS: Final = 1000
LOCAL: Final = re.compile(r"local(?:\[(\*|\d+).*\])?")

# A single machine needs no pages for people, no bars on the console, and no other address.
ALWAYS: Final = {
    "spark.python.daemon.module": "pipelines.worker_daemon",  # torch is loaded once, before workers fork
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def derive_conf(settings: Settings) -> dict[str, str]:
    """Return the configuration for this machine and its drops; empty if the session does not run here alone.

    Args:
        settings: the master, the drops, and what is set already.
    """
    defaults = read_defaults()
    master = settings.spark.master or defaults.get("spark.master", "local[*]")
    found = LOCAL.fullmatch(master)
    if "PYSPARK_GATEWAY_PORT" in os.environ or not found:
        return {}
    cores = count_cores() if found[1] in (None, "*") and master != "local" else int(found[1] or 1)
    derived = {**ALWAYS, **size_conf(cores, total_memory(), drop_bytes(settings.drops))}
    return {key: value for key, value in derived.items() if key not in defaults}


def size_conf(cores: int, memory: int, data: int) -> dict[str, str]:
    """Return what depends on the size of the machine and the data.

    Args:
        cores: the cores that Spark uses.
        memory: the bytes of memory of the machine.
        data: the bytes of the drops.
    """
    heap = min(START_HEAP + UNPACKED * data, int(HEAP_SHARE * memory), MOST_HEAP)
    partitions = min(MOST_PARTITIONS, max(cores, math.ceil(UNPACKED * data / PARTITION)))
    small = partitions <= 2 * cores
    return {
        "spark.driver.memory": f"{max(heap, LEAST_HEAP) >> 20}m",
        "spark.sql.shuffle.partitions": str(partitions),
        "spark.databricks.delta.snapshotPartitions": str(min(cores, 8)),
        # With few partitions, planning a query a second time costs more than it saves.
        **({"spark.sql.adaptive.enabled": "false"} if small else {}),
    }


def count_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int:
    """Return the memory of this machine in bytes, or of its container if that has less."""
    return min(psutil.virtual_memory().total, group_limit())


def group_limit() -> int:
    """Return the limit of memory of this container in bytes; a very large number if there is none."""
    limit = LIMIT_OF_GROUP.read_text().strip() if LIMIT_OF_GROUP.exists() else "max"
    return 1 << 62 if limit == "max" else int(limit)


def drop_bytes(drops: str) -> int:
    """Return the bytes of all drops; 0 if they are not on this machine."""
    root = local_path(drops)
    if root is None or not root.is_dir():
        return 0
    return sum(_file_bytes(Path(folder, name)) for folder, _, names in os.walk(root) for name in names)


def _file_bytes(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it is no longer there, as drops may be moved at any time."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def conf_folder() -> Path:
    """Return the folder of Spark's own configuration, which need not exist."""
    home = os.environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)
    return Path(os.environ.get("SPARK_CONF_DIR", f"{home}/conf"))


def read_defaults() -> Mapping[str, str]:
    """Return what Spark's own `spark-defaults.conf` sets, if there is one."""
    path = conf_folder() / "spark-defaults.conf"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = [re.split(r"[\s=:]+", line.strip(), maxsplit=1) for line in lines if line.strip()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and not pair[0].startswith("#")}
