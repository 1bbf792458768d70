"""A driver that places scoring on the GPUs of the executors, and shows which task had which GPU.

    spark-submit … gpu_tasks.py TASKS

The driver prints the placement, and one JSON line for each task with its device, its start and its end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from pipelines.score.placement import own_device, place_scoring


def main() -> None:
    tasks = int(sys.argv[1])
    spark = SparkSession.builder.getOrCreate()
    while (
        len(spark._jsc.sc().statusTracker().getExecutorInfos()) < 3
    ):  # it waits for the driver and two executors
        time.sleep(0.1)
    placement = place_scoring(spark.sparkContext, "auto", "auto")
    print("placement " + json.dumps([*placement.choice, placement.profile is not None, placement.tasks]))

    def hold(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            device, started = own_device("cuda"), time.time()
            time.sleep(0.5)
            yield pa.record_batch([pa.array([json.dumps([device, started, time.time()])])], names=["row"])

    spread = spark.range(tasks, numPartitions=tasks)
    for row in spread.mapInArrow(hold, "row string", profile=placement.profile).collect():
        print("task " + row[0], flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
