"""What Parquet files hold, from their footers: no type is inferred by looking at values.

pyarrow reads the footer through Hadoop's client, so any storage that Spark reaches will do. Columns that no
setting names are never read, so their names and types can be anything.
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

READERS = 8  # footers that are fetched at once
NANOS = "bigint:nanos"  # nanoseconds since 1970, which Spark has no type for
LOCAL_NANOS = "bigint:local nanos"  # the same of a clock without a zone


class Footer(NamedTuple):
    """A file's columns by name, each with the type that Spark reads it as; None for a type that it cannot."""

    file: DropFile
    types: dict[str, str | None]
    shown: dict[str, str]  # the types as the file has them
    repeated: frozenset[str]  # names that several columns have


class HadoopFile(io.RawIOBase):
    """A file on any Hadoop storage, as Python reads one."""

    def __init__(self, spark: SparkSession, file: DropFile) -> None:
        path, fs = hadoop_path(spark, file.uri)
        self._stream, self._size, self._at = fs.open(path), file.size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the bytes from the start."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        self._stream.seek(self._at)
        data = bytes(self._stream.readNBytes(wanted))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Let the storage's stream go."""
        if not self.closed:
            self._stream.close()
        super().close()


def read_footers(spark: SparkSession, files: Sequence[DropFile]) -> tuple[list[Footer], list[Fault]]:
    """The footer of every file, and the files that are no Parquet."""
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(lambda file: _read_footer(spark, file), files))
    return [each for each in found if isinstance(each, Footer)], [e for e in found if isinstance(e, Fault)]


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
        f"this file of {file.size:,} bytes is no whole Parquet file ({said}); deliver it again, remove it, "
        "or begin its name with _ to have it ignored",
    )


def _describe(file: DropFile, parquet: pq.ParquetFile) -> Footer:
    schema, columns = parquet.schema_arrow, parquet.schema
    names = schema.names
    # By the name of the top-level column; INT96 is a physical type that Arrow's schema does not show.
    int96 = {
        columns.column(i).path for i in range(len(columns)) if columns.column(i).physical_type == "INT96"
    }
    types = {field.name: "timestamp" if field.name in int96 else spark_type(field.type) for field in schema}
    repeated = frozenset(name for name in names if names.count(name) > 1)
    return Footer(file, types, {field.name: str(field.type) for field in schema}, repeated)


def spark_type(kind: pa.DataType) -> str | None:
    """The type by which Spark reads a Parquet column without loss, None where it has none."""
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
