"""Read Parquet drops: files whose wanted columns have the same types are read together by Spark's reader.

Only the wanted columns are read, by name and with the types of the footers, so no other column can stop a
drop. Their values then go through the same rules as the values of text files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import DataType, StructField, StructType

from pipelines.ingest.drop_faults import Fault
from pipelines.ingest.footers import LOCAL_NANOS, NANOS, Footer, read_footers
from pipelines.ingest.listing import DropFile
from pipelines.ingest.wanted_columns import Wanted
from pipelines.settings.settings import Settings
from pipelines.store.frames import parse_schema
from pipelines.store.storage import NO_GLOB
from pipelines.udfs.value_columns import combine, read_column
from pipelines.udfs.values import ValueRules, WantedColumn

# A path is taken literally, and the names of its folders are not columns.
LOOKUP = {"recursiveFileLookup": "true", **NO_GLOB}
Types = tuple[tuple[str, str], ...]  # source columns, each with the type that Spark reads it as


class ParquetRows(NamedTuple):
    """The rows of Parquet files."""

    frames: list[DataFrame]  # a struct of the row, and the columns of the filter
    names: set[str]  # the names of all columns of the files
    faults: list[Fault]
    files: list[DropFile]  # the files that are read


def read_parquet(
    spark: SparkSession, settings: Settings, wanted: Wanted, files: Sequence[DropFile]
) -> ParquetRows:
    """Read all files that can be read, in one frame for each combination of types.

    Args:
        spark: the session that reads.
        settings: how values are read.
        wanted: the source and its columns.
        files: the Parquet files.
    """
    footers, faults = read_footers(spark, files)
    whole: list[Footer] = []
    for footer in footers:
        found = _check_footer(footer, wanted)
        faults += found
        whole += [] if found else [footer]
    groups: dict[Types, list[DropFile]] = defaultdict(list)
    for footer in whole:
        types = tuple((name, footer.types[name] or "") for name in wanted.sources if name in footer.types)
        groups[types].append(footer.file)
    frames = [_read_group(spark, settings, wanted, types, group) for types, group in groups.items()]
    names = {name for footer in whole for name in footer.types}
    return ParquetRows(frames, names, faults, [footer.file for footer in whole])


def _check_footer(footer: Footer, wanted: Wanted) -> list[Fault]:
    """Find what keeps the wanted columns of a file from being read."""
    faults = []
    for column in wanted.columns:
        if column.required and column.source not in footer.types:
            faults.append(
                f"the required column {column.source!r} (our {column.name}) is missing; the file has "
                f"{sorted(footer.types)}. Deliver it, or map another column to {column.name}"
            )
    for name in wanted.filter_columns:
        if name not in footer.types:
            faults.append(
                f"the column {name!r}, which `where` needs, is missing; the file has {sorted(footer.types)}"
            )
    for name in wanted.sources:
        if name in footer.repeated:
            faults.append(f"the column {name!r} is there more than once; give this name to one column")
        elif name in footer.types and footer.types[name] is None:
            faults.append(
                f"the column {name!r} is {footer.shown[name]}, which Spark can't read; deliver it as a "
                "number, text, date or timestamp"
            )
    return [Fault(footer.file.uri, fault) for fault in faults]


def quote(name: str) -> Column:
    """Return a source column; its name may hold any character."""
    return F.col("`" + name.replace("`", "``") + "`")


def _read_group(
    spark: SparkSession, settings: Settings, wanted: Wanted, types: Types, files: Sequence[DropFile]
) -> DataFrame:
    """Read the rows of files that have the same types."""
    known, columns = dict(types), wanted.columns
    raw = open_files(spark, types, files)
    missing = F.lit(None).cast("string")
    values = [_as_arrow(c.source, known[c.source]) if c.source in known else missing for c in columns]
    fields = ", ".join(f"{c.name} {c.type}" for c in columns)
    convert = arrow_udf(  # type: ignore[call-overload]  # its stub requires a third argument
        _converter(columns, [known.get(c.source, "") for c in columns], settings.ingest.rules),
        f"{fields}, _reason string, _value string",
    )
    filters = {name: quote(name) if name in known else missing for name in wanted.filter_columns}
    read = raw.select(
        convert(*values).alias("read"),
        F.struct(*place_of(raw)).alias("place"),
        F.struct(F.lit(1), *(column.alias(name) for name, column in filters.items())).alias("filter"),
    )
    row = F.struct(
        *(F.col(f"read.{name}") for name in (*(c.name for c in columns), "_reason", "_value")),
        *(F.col(f"place.{name}") for name in ("_file", "_location")),
        missing.alias("_raw"),
        F.lit("row").alias("_status"),
    )
    return read.select(row.alias(wanted.row_name), *(F.col("filter")[name].alias(name) for name in filters))


def open_files(spark: SparkSession, types: Types, files: Sequence[DropFile]) -> DataFrame:
    """Read Parquet files: only the columns of `types`, with these types.

    Args:
        spark: the session that reads.
        types: the columns and their types.
        files: the files.
    """
    schema = StructType([StructField(name, _data_type(kind)) for name, kind in types])
    reader = spark.read.schema(schema).options(**LOOKUP)
    return reader.parquet(*(file.uri for file in files))


def _data_type(kind: str) -> DataType:
    return parse_schema(f"x {kind.split(':')[0]}")[0].dataType


def place_of(rows: DataFrame) -> list[Column]:
    """Return the columns `_file` and `_location`: the file of a row, and the number of the row in it."""
    meta = rows.metadataColumn("_metadata")
    number = F.format_number(meta["row_index"] + 1, 0)
    return [meta["file_path"].alias("_file"), F.concat(F.lit("row "), number).alias("_location")]


def _as_arrow(name: str, kind: str) -> Column:
    """Return a source column in a form that Arrow can carry to Python."""
    return F.make_valid_utf8(quote(name)) if kind == "string" else quote(name)


def _converter(
    columns: Sequence[WantedColumn], kinds: Sequence[str], rules: ValueRules
) -> Callable[..., pa.Array]:
    """Make the body of a UDF over the wanted columns of one combination of types."""

    def convert(*arrays: pa.Array) -> pa.Array:
        values = [as_times(array, kind) for array, kind in zip(arrays, kinds, strict=True)]
        reads = [read_column(array, c, rules) for array, c in zip(values, columns, strict=True)]
        return combine(reads, columns, values)

    convert.__annotations__ = {
        "arrays": pa.Array,
        "return": pa.Array,
    }  # types and not text, as Spark reads them
    return convert


def as_times(array: pa.Array, kind: str) -> pa.Array:
    """Turn nanoseconds, which Spark has read as whole numbers, into times, rounded down to microseconds."""
    if kind not in (NANOS, LOCAL_NANOS):
        return array
    micros = np.floor_divide(array.fill_null(0).to_numpy(zero_copy_only=False), 1000)
    mask = array.is_null().to_numpy(zero_copy_only=False)
    return pa.array(micros, pa.int64(), mask=mask).cast(
        pa.timestamp("us", tz="UTC" if kind == NANOS else None)
    )


def read_raw_rows(spark: SparkSession, files: Sequence[DropFile], paths: Collection[str]) -> DataFrame:
    """Read every row of the files at `paths`, with all of its columns as JSON: `_file, _location, _raw`.

    Args:
        spark: the session that reads.
        files: the files that can be read.
        paths: the paths of some of them in Spark's spelling, with the escapes of URIs.
    """
    wanted = {spark_path(path) for path in paths}
    footers = read_footers(spark, [file for file in files if plain_path(file.uri) in wanted]).read
    groups: dict[Types, list[DropFile]] = defaultdict(list)
    for footer in footers:
        known = {n: kind for n, kind in footer.types.items() if kind and n not in footer.repeated}
        groups[tuple(known.items())].append(footer.file)
    frames = []
    for types, group in groups.items():
        rows = open_files(spark, types, group)
        whole = F.to_json(F.struct(*(quote(name) for name, _ in types)), {"ignoreNullFields": "false"})
        frames.append(rows.select(*place_of(rows), F.make_valid_utf8(whole).alias("_raw")))
    return reduce(DataFrame.unionByName, frames)


def plain_path(uri: str) -> str:
    """Return one spelling of a path, as Hadoop writes `file:/` and Spark writes `file:///`."""
    return uri.replace("file:///", "file:/", 1)


def spark_path(uri: str) -> str:
    """Return the plain path of a URI in Spark's spelling, which escapes some characters."""
    return plain_path(unquote(uri))
