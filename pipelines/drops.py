"""Reading drop folders: `raw/<source>/ds=YYYY-MM-DD/` of parquet, CSV or JSON lines.

Whatever the format, the result has the declared columns with the declared types, a
`reason` (null for a good row), the row as it came (JSON) and the file it came from. A
missing optional column is null, an extra one is ignored and reported, a missing
required or a narrowed one fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException as SparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from lime_model.errors import LimeError
from pipelines.columns import DROP_DS
from pipelines.settings import Settings
from pipelines.storage import list_names, path_exists
from pipelines.tables import local_rows, parse_schema

CORRUPT = "_corrupt_record"
REASON, RAW, FILE = "reason", "row", "file"

# What writers that infer types call an array column that is null all day; a value in it is a wrong type.
NO_ARRAYS = {"void", "int", "string"}
# A source type that loses nothing when read as ours; anything else in a typed file is narrowed.
LOSSLESS = {
    "bigint": {"tinyint", "smallint", "int", "bigint", "string"},
    "double": {"tinyint", "smallint", "int", "bigint", "float", "double", "string"},
    "string": {"tinyint", "smallint", "int", "bigint", "string", "boolean", "date", "double", "float"},
    "timestamp": {"timestamp", "timestamp_ntz", "string"},
    "date": {"date", "string"},
    "boolean": {"boolean", "string"},
    "array<string>": {f"array<{kind}>" for kind in ("string", "int", "bigint", "boolean")} | NO_ARRAYS,
    "array<double>": {f"array<{kind}>" for kind in ("int", "bigint", "float", "double", "string")}
    | NO_ARRAYS,
}


class DropError(LimeError):
    """A drop that cannot be loaded as it is; nothing of it was committed."""


class Wanted(NamedTuple):
    """One column we want: SQL type, source name, and whether a drop may lack it."""

    type: str
    source: str
    required: bool


@dataclass(frozen=True)
class Drop:
    """Checked rows of some days, and the source columns nobody asked for."""

    rows: DataFrame
    extra: list[str]


def read_drop(
    spark: SparkSession,
    settings: Settings,
    source: str,
    days: Sequence[str],
    wanted: Mapping[str, Wanted],
) -> Drop:
    """Read `raw/<source>` for `days`.

    Args:
        source: `events`, `items` or `users`.
        days: `YYYY-MM-DD`, each with a folder of its own.
        wanted: our column -> what it is.

    Raises:
        DropError: a folder is missing (unless `ingest.missing_drop: empty`), a required
            column is missing, or a typed file has narrowed one.
    """
    present = [day for day in days if path_exists(spark, drop_path(settings, source, day))]
    absent = [day for day in days if day not in present]
    if absent and settings.ingest.missing_drop == "fail":
        raise DropError(
            f"no drop folder {drop_path(settings, source, absent[0])}"
            f"{f' (and {len(absent) - 1} more days)' if len(absent) > 1 else ''}; deliver it, leave an empty "
            "folder for a day without rows, or set ingest.missing_drop: empty"
        )
    frames = _frames(spark, settings, source, present)
    if not frames:
        return Drop(_empty(spark, wanted), [])
    known = {w.source for w in wanted.values()} | {CORRUPT, FILE, DROP_DS}
    extra: set[str] = set()
    for raw in frames:
        _check_columns(raw, source, wanted)
        extra |= set(raw.columns) - known
    typed = [_typed(raw, settings, wanted) for raw in frames]
    return Drop(reduce(DataFrame.unionByName, typed), sorted(extra))


def drop_path(settings: Settings, source: str, day: str) -> str:
    """Folder of one day of one source."""
    return f"{settings.drops.rstrip('/')}/{source}/ds={day}"


def drop_days(spark: SparkSession, settings: Settings, source: str) -> list[str]:
    """Days that have a folder, ascending."""
    names = list_names(spark, f"{settings.drops.rstrip('/')}/{source}")
    return [name[3:] for name in names if name.startswith("ds=")]


def explain_read_errors(error: Py4JJavaError | SparkException, source: str) -> DropError:
    """What a data engineer needs of a failed read: the file, and what to do.

    Raises:
        The error itself when it is not about reading a file.
    """
    lines = str(error).splitlines()
    about = [line for line in lines if "FAILED_READ_FILE" in line or "while reading file" in line]
    if not about:
        raise error
    return DropError(
        f"{source}: {about[0].strip()} Nothing was committed; deliver the file again or remove it"
    )


def _frames(spark: SparkSession, settings: Settings, source: str, days: Sequence[str]) -> list[DataFrame]:
    paths = {day: drop_path(settings, source, day) for day in days}
    filled = {day: path for day, path in paths.items() if _has_files(spark, path)}
    if not filled:
        return []
    if settings.ingest.format == "parquet":
        return _parquet(spark, f"{settings.drops.rstrip('/')}/{source}", filled, source)
    read = _csv if settings.ingest.format == "csv" else _json
    return [_stamped(read(spark, path), day) for day, path in filled.items()]


def _parquet(spark: SparkSession, root: str, paths: Mapping[str, str], source: str) -> list[DataFrame]:
    """One read for all days when their types agree, else a read a day.

    A writer that infers types makes an all-null or empty column an integer for a day; each
    day is then cast on its own.
    """
    reader = spark.read.option("basePath", root)
    try:
        rows = reader.option("mergeSchema", "true").parquet(*paths.values())
        return [rows.withColumn(DROP_DS, F.col("ds").cast("date")).drop("ds").withColumn(FILE, _file())]
    except (Py4JJavaError, SparkException) as error:
        if "CANNOT_MERGE" not in str(error):
            raise explain_read_errors(error, source) from error
    return [_stamped(spark.read.parquet(path), day) for day, path in paths.items()]


def _stamped(rows: DataFrame, day: str) -> DataFrame:
    return rows.withColumn(FILE, _file()).withColumn(DROP_DS, F.lit(day).cast("date"))


def _csv(spark: SparkSession, path: str) -> DataFrame:
    reader = spark.read.option("header", "true").option("enforceSchema", "false")
    header = reader.csv(path).columns
    schema = StructType([StructField(name, StringType()) for name in [*header, CORRUPT]])
    # Caching keeps Spark from pruning every column but the corrupt record, which it refuses.
    return reader.schema(schema).option("columnNameOfCorruptRecord", CORRUPT).csv(path)


def _json(spark: SparkSession, path: str) -> DataFrame:
    return spark.read.option("primitivesAsString", "true").json(path)


def _file() -> Column:
    return F.col("_metadata.file_path")


def _check_columns(raw: DataFrame, source: str, wanted: Mapping[str, Wanted]) -> None:
    types = dict(raw.dtypes)
    for name, column in wanted.items():
        found = types.get(column.source)
        if found is None and column.required:
            raise DropError(
                f"{source}: required column {column.source!r} (our {name}) is missing; the drop has "
                f"{sorted(types)}. Deliver it, or map another column to {name} in ingest.{source}"
            )
        if found is not None and found not in LOSSLESS[column.type]:
            raise DropError(
                f"{source}: column {column.source!r} is {found}, which cannot hold a {column.type} "
                f"without loss; accepted: {sorted(LOSSLESS[column.type])}"
            )


def _typed(raw: DataFrame, settings: Settings, wanted: Mapping[str, Wanted]) -> DataFrame:
    """Our columns by `try_cast`, and the first reason why a row is bad."""
    types = dict(raw.dtypes)
    columns, reasons = [], []
    corrupt = F.col(CORRUPT).isNotNull() if CORRUPT in types else F.lit(False)
    reasons.append(F.when(corrupt, F.lit("malformed_row")))
    for name, column in wanted.items():
        if column.source not in types:
            columns.append(F.lit(None).cast(column.type).alias(name))
            continue
        value = _cast(column, types[column.source], settings.ingest.source_timezone)
        columns.append(value.alias(name))
        wrong = "unreadable_timestamp" if column.type == "timestamp" else f"wrong_type:{name}"
        reasons.append(F.when(F.col(_quote(column.source)).isNotNull() & value.isNull(), F.lit(wrong)))
        if column.required:
            reasons.append(F.when(value.isNull(), F.lit(f"null:{name}")))
    shown = [F.col(_quote(name)) for name in raw.columns if name not in (FILE, DROP_DS)]
    row = F.to_json(F.struct(*shown))
    return raw.select(*columns, F.coalesce(*reasons).alias(REASON), row.alias(RAW), FILE, DROP_DS)


def _cast(column: Wanted, found: str, zone: str) -> Column:
    value = F.col(_quote(column.source))
    if column.type.startswith("array") and not found.startswith("array"):
        return F.lit(None).cast(column.type)  # a day without any: see NO_ARRAYS
    if column.type != "timestamp" or found == "timestamp":
        return value.try_cast(column.type)
    local = value.try_cast("timestamp_ntz")
    return F.to_utc_timestamp(local.cast("timestamp"), zone)  # the session's own zone is UTC


def _quote(name: str) -> str:
    return f"`{name}`"


def _empty(spark: SparkSession, wanted: Mapping[str, Wanted]) -> DataFrame:
    fields = [f"{name} {column.type}" for name, column in wanted.items()]
    extra = [f"{REASON} string", f"{RAW} string", f"{FILE} string", f"{DROP_DS} date"]
    return local_rows(spark, [], parse_schema(", ".join(fields + extra)))


def _has_files(spark: SparkSession, uri: str) -> bool:
    return any(not name.startswith(("_", ".")) for name in list_names(spark, uri))
