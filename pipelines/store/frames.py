"""Provide small helpers for DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType


def parse_schema(ddl: str) -> StructType:
    """Parse a schema from `name type, …`."""
    schema = StructType.fromDDL(ddl)
    assert isinstance(schema, StructType)
    return schema


def local_rows(spark: SparkSession, rows: list[dict[str, Any]], schema: StructType) -> DataFrame:
    """Make a frame of a few rows of the driver through Arrow, as plain Python rows would start a worker.

    Args:
        spark: the session that owns the frame.
        rows: the values of each row by column; a column that a row lacks is null.
        schema: the columns of the frame; times are in UTC.
    """
    return spark.createDataFrame(pa.Table.from_pylist(rows, to_arrow_schema(schema, timezone="UTC")), schema)


def count_cases(frame: DataFrame, cases: Mapping[str, Column]) -> dict[str, int]:
    """Sum each of `cases` over all rows in one pass; a condition counts as 1 or 0, and null as 0."""
    totals = frame.agg(*(F.sum(case.cast("long")).alias(name) for name, case in cases.items())).collect()[0]
    return {name: totals[name] or 0 for name in cases}


def sorted_arrow(frame: DataFrame, *keys: str) -> pa.Table:
    """Bring all rows to the driver, ascending by `keys`; `orderBy` would run its input twice."""
    return frame.toArrow().sort_by([(key, "ascending") for key in keys])


@contextmanager
def persisted(
    frame: DataFrame, level: StorageLevel = StorageLevel.MEMORY_AND_DISK_DESER
) -> Iterator[DataFrame]:
    """Keep the rows of a frame while the block runs, so that they are computed once."""
    kept = frame.persist(level)
    try:
        yield kept
    finally:
        kept.unpersist()
