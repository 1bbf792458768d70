"""The driver of `scale.py`, which scores the users in a folder on the cluster that it is submitted to.

    spark-submit … scale_driver.py FOLDER

The driver first scores a few users as a warm-up, then all of them, and prints `seconds S` of that second
pass.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.schemas import SCORED, ddl_of
from pipelines.udfs.score_users import score_users

BATCH = 64


def main() -> None:
    """Time one pass over all users."""
    folder = Path(sys.argv[1])
    task = pickle.loads((folder / "task.pickle").read_bytes())
    spark = SparkSession.builder.config(
        "spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH)
    ).getOrCreate()
    tables = [pa.ipc.open_file(str(path)).read_all() for path in sorted(folder.glob("users-*.arrow"))]
    users = spark.createDataFrame(pa.concat_tables(tables))
    users = users.repartitionByRange(2, "user_id").cache()  # as many tasks for one worker as for two
    users.count()

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from score_users(batches, task, folder / "bundle", folder / "bank.arrow")

    def run(some: DataFrame) -> None:
        scored = some.mapInArrow(
            score, ddl_of("staging", columns=SCORED).format(user="bigint", item="bigint")
        )
        scored.write.format("noop").mode("overwrite").save()

    run(users.where(F.col("user_id") % 64 == 0))
    started = time.monotonic()
    run(users)
    print(f"seconds {time.monotonic() - started:.2f}", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
