"""A driver that sends a parcel, lets all executors map it together, and prints their memory.

    spark-submit … share_parcel.py BYTES WORKERS

The driver prints one JSON line for each worker: the files of our modules that it has loaded, the inode of the
parcel, and two numbers of bytes. These are its proportional share (`Pss`) of the parcel's pages, and the
growth of all its other memory.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path
from typing import Any

from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from pipelines.score.broadcast_files import BroadcastSender, unpack_once


def memory(word: str) -> tuple[int, int]:
    """Return the proportional bytes of mapped files whose path contains `word`, and of all other mappings."""
    ours = others = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            inside = word in line
        elif first == "Pss:":
            size = int(line.split()[1]) << 10
            ours, others = (ours + size, others) if inside else (ours, others + size)
    return ours, others


def main() -> None:
    size, workers = int(sys.argv[1]), int(sys.argv[2])
    spark = SparkSession.builder.getOrCreate()
    sender = BroadcastSender(spark.sparkContext)
    sender.add("bank", os.urandom(size))
    parcel = sender.finish()

    def hold(_: Any) -> Any:
        _, before = memory(parcel.name)
        barrier = BarrierTaskContext.get()
        with (
            (unpack_once(parcel) / "bank").open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages,
        ):
            total = sum(pages[at] for at in range(0, size, 4096))  # touch every page
            barrier.barrier()
            share, after = memory(parcel.name)
            barrier.barrier()
            yield {
                "code": sorted(
                    os.path.abspath(module.__file__)
                    for name, module in list(sys.modules.items())
                    if name.split(".")[0] in ("lime_model", "pipelines") and module.__file__
                ),
                "inode": os.fstat(file.fileno()).st_ino, "pid": os.getpid(),
                "share": share, "growth": after - before, "total": total, "executor": os.getppid(),
            }  # fmt: skip

    for row in (
        spark.sparkContext.parallelize(range(workers), workers).barrier().mapPartitions(hold).collect()
    ):
        print("worker " + json.dumps(row), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
