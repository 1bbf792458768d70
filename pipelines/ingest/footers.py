"""Read the columns and types of Parquet files from their footers; no type is inferred from values.

pyarrow reads the footers through Hadoop's client, so every storage that Spark reaches can be used. Columns
that no setting names are never read, so they may have any name and any type.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from lime_model.errors import LimeError
from pipelines.ingest.drop_faults import Fault
from pipelines.ingest.listing import DropFile
from pipelines.store.storage import hadoop_path, reaching

READERS = 8  # threads that read footers at the same time
NANOS = "bigint:nanos"  # nanoseconds since 1970 UTC, for which Spark has no type
LOCAL_NANOS = "bigint:local nanos"  # nanoseconds since 1970 on a clock without a zone


class Footer(NamedTuple):
    """The columns of a Parquet file."""

    file: DropFile
    types: dict[str, str | None]  # by column, the type that Spark reads it as; None where Spark has no type
    shown: dict[str, str]  # by column, the type that the file declares, for messages
    repeated: frozenset[str]  # names that several columns have


class Footers(NamedTuple):
    """The footers that could be read, and the faults of the other files."""

    read: list[Footer]
    faults: list[Fault]


class HadoopFile(io.RawIOBase):
    """A file on any Hadoop storage, with the interface of a Python file."""

    def __init__(self, spark: SparkSession, file: DropFile) -> None:
        path, fs = hadoop_path(spark, file.uri)
        self._stream, self._size, self._at = fs.open(path), file.size, 0

    def readable(self) -> bool:
        """Return True, as the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return True, as the position can be set."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes from the start."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; return it in bytes from the start."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read bytes into the buffer; return how many."""
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        self._stream.seek(self._at)
        data = bytes(self._stream.readNBytes(wanted))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close the stream of the storage."""
        if not self.closed:
            self._stream.close()
        super().close()


def read_footers(spark: SparkSession, files: Sequence[DropFile]) -> Footers:
    """Read the footer of every file; a file that is not Parquet becomes a fault."""
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(lambda file: _read_footer(spark, file), files))
    return Footers(
        [each for each in found if isinstance(each, Footer)],
        [each for each in found if isinstance(each, Fault)],
    )


def _read_footer(spark: SparkSession, file: DropFile) -> Footer | Fault:
    try:
        with reaching(file.uri), HadoopFile(spark, file) as stream:
            return _describe(file, pq.ParquetFile(stream))
    except LimeError as error:
        if error.remedy != "person":
            raise
        return Fault(file.uri, str(error).removeprefix(f"{file.uri}: "))
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
    return Fault(
        file.uri,
        f"this file of {file.size:,} bytes is not a complete Parquet file ({said}); deliver it again, "
        "remove it, or begin its name with _ to have it ignored",
    )


def _describe(file: DropFile, parquet: pq.ParquetFile) -> Footer:
    schema, columns = parquet.schema_arrow, parquet.schema
    names = schema.names
    # INT96 is a physical type that Arrow's schema does not show.
    int96 = {
        columns.column(i).path for i in range(len(columns)) if columns.column(i).physical_type == "INT96"
    }
    types = {field.name: "timestamp" if field.name in int96 else spark_type(field.type) for field in schema}
    repeated = frozenset(name for name in names if names.count(name) > 1)
    return Footer(file, types, {field.name: str(field.type) for field in schema}, repeated)


def spark_type(kind: pa.DataType) -> str | None:
    """Return the type as which Spark reads a Parquet column without loss, or None where it has none."""
    if pa.types.is_dictionary(kind):
        return spark_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        if kind.unit == "ns":
            return NANOS if kind.tz else LOCAL_NANOS
        return "timestamp" if kind.tz else "timestamp_ntz"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})" if kind.precision <= 38 else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        element = spark_type(kind.value_type)
        return f"array<{element}>" if element and ":" not in element else None
    return _PLAIN.get(str(kind))


_PLAIN = {
    "null": "int",
    "bool": "boolean",
    **dict.fromkeys(("int8", "int16", "int32"), "int"),
    "int64": "bigint",
    **dict.fromkeys(("uint8", "uint16"), "int"),
    "uint32": "bigint",
    "uint64": "decimal(20,0)",
    "float": "float",
    "double": "double",
    **dict.fromkeys(("string", "large_string", "string_view"), "string"),
    **dict.fromkeys(("binary", "large_binary", "binary_view"), "binary"),
    **dict.fromkeys(("date32[day]", "date64[ms]"), "date"),
}
