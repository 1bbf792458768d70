"""Read CSV and JSON-lines drops: Spark splits files into lines, and one UDF reads them (udfs/text_rows.py).

One task reads a complete file, as a quoted line break makes its lines depend on each other; only JSON lines
in files without compression are split among tasks. A file whose encoding or compression Spark's reader does
not know is read as one value, which limits it to 2 GiB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.ingest.drop_faults import Fault
from pipelines.ingest.listing import DropFile
from pipelines.ingest.read_parquet import LOOKUP
from pipelines.ingest.wanted_columns import Wanted
from pipelines.settings.settings import Settings
from pipelines.udfs.text_files import TextSpec
from pipelines.udfs.text_rows import read_contents, read_lines, text_columns

STREAMED = {".gz": "gzip", ".bz2": "bz2"}  # Spark's reader unpacks these
WHOLE = {".zst": "zstd", ".lz4": "lz4"}  # the UDF unpacks these
PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar", ".xz", ".snappy", ".deflate", ".lzo", ".br")
MOST_WHOLE = (1 << 31) - 1 - 1024  # bytes of a file that is one value
TASK_BYTES = 128 << 20  # bytes of CSV that one task reads


class TextRows(NamedTuple):
    """The rows of text files, and the faults of files that can't be read."""

    frames: list[DataFrame]  # a struct of the row, and the columns of the filter
    faults: list[Fault]


def read_text(spark: SparkSession, settings: Settings, wanted: Wanted, files: Sequence[DropFile]) -> TextRows:
    """Read all files that can be read.

    Args:
        spark: the session that reads.
        settings: the dialect of the files, and how values are read.
        wanted: the source and its columns.
        files: the CSV or JSON-lines files.
    """
    groups: dict[str | None, list[DropFile]] = defaultdict(list)
    faults: list[Fault] = []
    for file in files:
        way = _find_way(settings, file)
        if isinstance(way, Fault):
            faults.append(way)
        else:
            groups[way].append(file)
    spec = text_spec(settings, wanted)
    frames = []
    for compression, group in groups.items():
        read = _stream(spark, settings, group, spec) if compression is None else _whole(
            spark, group, spec, None if compression == "none" else compression
        )  # fmt: skip
        frames.append(_shape(read, wanted))
    return TextRows(frames, faults)


def text_spec(settings: Settings, wanted: Wanted) -> TextSpec:
    """Collect what the UDF needs from the settings."""
    ingest, csv = settings.ingest, settings.ingest.csv
    return TextSpec(
        format="csv" if ingest.format == "csv" else "json",
        wanted=wanted.columns,
        where=wanted.filter_columns,
        rules=ingest.rules,
        encoding=ingest.encoding,
        delimiter=csv.delimiter,
        quote=csv.quote,
        escape=csv.escape,
        header=tuple(csv.header) if isinstance(csv.header, list) else None,
    )


def _find_way(settings: Settings, file: DropFile) -> str | Fault | None:
    """Choose how to read a file.

    Returns:
        None for a file that Spark splits into lines, the compression (or `none`) of a file that is read as
        one value, or a fault.
    """
    name, ingest = file.uri.lower(), settings.ingest
    ending = name[name.rfind(".") :]
    if ingest.compression == "auto" and name.endswith(PACKED):
        return Fault(
            file.uri,
            f"this file is packed in a way that is not read ({ending}); deliver it plain, or as .gz, .bz2, "
            ".zst or .lz4",
        )
    found = {**STREAMED, **WHOLE}.get(ending, "none")
    compression = found if ingest.compression == "auto" else ingest.compression
    wide = "\n".encode(ingest.encoding) != b"\n"
    if not wide and compression == found and ending not in WHOLE:
        return None
    if file.size > MOST_WHOLE:
        return Fault(
            file.uri,
            f"this file has {file.size:,} bytes, and files of this encoding or compression may have "
            f"{MOST_WHOLE:,}; deliver it in parts, or as UTF-8 with gzip",
        )
    return compression


def _stream(spark: SparkSession, settings: Settings, files: Sequence[DropFile], spec: TextSpec) -> DataFrame:
    """Read files that Spark splits into lines; the lines of a file stay in order."""
    rows = spark.read.options(**LOOKUP).text([file.uri for file in files])
    lines = rows.select(
        F.col("_metadata.file_path").alias("file"),
        F.col("_metadata.file_block_start").alias("start"),
        F.col("value").cast("binary").alias("line"),
    )
    if settings.ingest.format == "csv":
        # Each file is a partition. With fewer tasks than files, a task reads several files one after another.
        cores = spark.sparkContext.defaultParallelism
        tasks = max(2 * cores, sum(file.size for file in files) // TASK_BYTES)
        lines = lines.coalesce(max(1, min(len(files), tasks)))

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from read_lines(batches, spec)

    return lines.mapInArrow(work, _ddl(spec))


def _whole(
    spark: SparkSession, files: Sequence[DropFile], spec: TextSpec, compression: str | None
) -> DataFrame:
    """Read files that are each one value."""
    reader = spark.read.format("binaryFile").options(**LOOKUP)
    rows = reader.load([file.uri for file in files])
    contents = rows.select(F.col("_metadata.file_path").alias("file"), "content")

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from read_contents(batches, spec, compression)

    return contents.mapInArrow(work, _ddl(spec))


def _ddl(spec: TextSpec) -> str:
    fields = [f"{column.name} {column.type}" for column in spec.wanted]
    return ", ".join([*fields, *(f"{name} string" for name in text_columns(spec))])


def _shape(read: DataFrame, wanted: Wanted) -> DataFrame:
    names = [name for name in read.columns if not name.startswith("_where_")]
    filters = [F.col(f"_where_{i}").alias(name) for i, name in enumerate(wanted.filter_columns)]
    return read.select(F.struct(*names).alias(wanted.row_name), *filters)
