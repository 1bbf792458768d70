"""Test that the session of every job limits the size of the Arrow batches of its Python workers."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def test_an_arrow_batch_is_also_limited_in_bytes(spark: SparkSession) -> None:
    """With only the limit of 256 rows, these 200 rows of a megabyte would be one batch."""

    def weigh(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from (pa.record_batch({"rows": [b.num_rows], "bytes": [b.nbytes]}) for b in batches)

    wide = spark.range(200, numPartitions=1).select(F.repeat(F.lit("x"), 1 << 20).alias("wide"))
    found = wide.mapInArrow(weigh, "rows long, bytes long").collect()
    assert sum(row["rows"] for row in found) == 200
    assert max(row["bytes"] for row in found) <= 65 << 20
