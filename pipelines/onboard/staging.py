"""Copy the rows of a table into Parquet files that DuckDB reads; no row is lost and no value is changed.

The values of CSV and JSON lines stay text, as the product's own readers (`pipelines/udfs/text_files.py`) give
them. A nested object becomes one column for each of its keys: `{"user": {"id": 1}}` is `user_id`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.onboard.dialect import DataError, Dialect, is_separator_line, open_bytes, read_text_lines
from pipelines.onboard.tables import Table
from pipelines.udfs.text_files import CsvReader, FileFault, JsonReader, Record, TextSpec
from pipelines.udfs.values import ValueRules

FILE, LINE = "_file", "_line"
ROWS: Final = 200_000  # rows of a staged file
MOST_KEYS: Final = 2000  # columns of a table of JSON lines
Say = Callable[[str], None]  # takes a line about what is being done


class BadRow(NamedTuple):
    """A row that can't be read."""

    file: str
    line: int
    problem: str


class Staged(NamedTuple):
    """A table after copying."""

    table: Table
    folder: Path
    rows: int  # rows that were read, with those that are bad
    bad: list[BadRow]
    inner: frozenset[str]  # the columns that come from inside an object

    @property
    def pattern(self) -> str:
        """The files as DuckDB and people name them."""
        return str(self.folder / "*.parquet")


def text_spec(dialect: Dialect) -> TextSpec:
    """Return how the product's reader reads files of a dialect, without any wanted columns."""
    return TextSpec(
        "json" if dialect.format == "json" else "csv", (), (), ValueRules(frozenset()),
        encoding=dialect.encoding, delimiter=dialect.delimiter, quote=dialect.quote, escape=dialect.escape,
        header=dialect.header,
    )  # fmt: skip


def stage(table: Table, folder: Path, *, flat: bool = True, say: Say = lambda _: None) -> Staged:
    """Copy all rows of a table.

    Args:
        table: the files and their dialect.
        folder: where the copies are written.
        flat: whether nested objects become columns, and names that drops can't have are changed.
        say: is called with a line after every `ROWS` rows.

    Raises:
        DataError: a file can't be read.
    """
    folder.mkdir(parents=True)
    if table.dialect.format == "parquet":
        return _stage_parquet(table, folder, flat=flat)
    bad: list[BadRow] = []
    count, inner = 0, set[str]()
    number = itertools.count()
    for path in table.files:
        rows: list[dict[str, Any]] = []
        for record in read_records(path, table.dialect, arrays=flat):
            count += 1
            if record.values is None:
                bad.append(BadRow(str(path), record.line, record.problem))
                continue
            row, made = _flatten(record.values, flat=flat)
            inner |= made
            rows.append(row | {FILE: str(path), LINE: record.line})
            if len(rows) == ROWS:
                _write(rows, folder / f"{next(number):05}.parquet")
                rows = []
                say(f"read {count:,} rows of {table.name}")
        if rows:
            _write(rows, folder / f"{next(number):05}.parquet")
    return Staged(table, folder, count, bad, frozenset(inner))


def read_records(path: Path, dialect: Dialect, *, arrays: bool = False) -> Iterator[Record]:
    """Yield the rows of a text file as ingest would read them.

    Args:
        path: the file.
        dialect: how it is written.
        arrays: whether a JSON file may also be one array over several lines, which ingest refuses.

    Raises:
        DataError: the header is not one, or the array is torn.
    """
    spec, above = text_spec(dialect), lines_above(path, dialect)
    reader = CsvReader(spec) if spec.format == "csv" else JsonReader(spec)
    lines: Iterable[str] = read_text_lines(path, dialect)
    if arrays and is_array(path, dialect):
        lines = _open_array(path, dialect)
    try:
        for number, record in enumerate(reader.records(iter(lines))):
            names = [name.lower() for name in reader.names()] if number == 0 else []
            if len(set(names)) < len(names) and spec.format == "csv":
                raise FileFault(f"the header names a column twice ({names}); rename one, or give --header")
            yield record._replace(line=record.line + above) if above else record
    except FileFault as fault:
        raise DataError(f"{path}: {fault}") from None


def lines_above(path: Path, dialect: Dialect) -> int:
    """Return how many lines above the header or the first row are left out: one that is only for Excel."""
    if dialect.format != "csv":
        return 0
    with open_bytes(path) as stream:
        first = stream.read(64).decode(dialect.encoding, "replace").lstrip("\ufeff").splitlines()[:1]
    return int(bool(first) and is_separator_line(first[0]))


def is_array(path: Path, dialect: Dialect) -> bool:
    """Whether a JSON file is one array over several lines, which is not JSON lines."""
    if dialect.format != "json":
        return False
    with open_bytes(path) as stream:
        start = stream.read(4096).decode(dialect.encoding, "replace").lstrip("\ufeff \n\r\t")
    return start.startswith("[") and not start.split("\n", 1)[0].rstrip().endswith("]")


def _open_array(path: Path, dialect: Dialect) -> list[str]:
    """Return the objects of a file that is one JSON array, a line for each."""
    text = "\n".join(read_text_lines(path, dialect))
    try:
        return [json.dumps(each, ensure_ascii=False) for each in json.loads(text)]
    except ValueError as error:
        raise DataError(f"{path} is neither JSON lines nor an array ({error}); deliver JSON lines") from None


def safe_name(name: str) -> str:
    """Return a name that a column of a daily drop can have: not empty, and not that of the folders."""
    return f"{name}_source" if name.lower() == "ds" else name or "unnamed"


def _flatten(values: Mapping[str, object], *, flat: bool) -> tuple[dict[str, Any], set[str]]:
    """Return a row of text, with a column for each key of a nested object, and the names of those columns."""
    row: dict[str, Any] = {}
    made: set[str] = set()
    for name, value in values.items():
        if value.__class__ is str and name and (len(name) != 2 or not flat):
            row[name] = value
        elif isinstance(value, Mapping) and flat:
            inner = {f"{name}_{key}": each for key, each in _flatten(value, flat=flat)[0].items()}
            row |= inner
            made |= inner.keys()
        else:
            row[safe_name(name) if flat else name or "unnamed"] = _as_text(value)
    return row, made


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=float)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > MOST_KEYS:
        raise DataError(f"{rows[0][FILE]} has more than {MOST_KEYS:,} different keys; deliver events as rows")
    fields = [pa.field(name, pa.int64() if name == LINE else pa.string()) for name in names]
    columns = [_to_array([row.get(field.name) for row in rows], field.type) for field in fields]
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), path)


def _to_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an array; characters that are not valid in UTF-8 become U+FFFD."""
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([each and str(each).encode("utf-8", "replace").decode() for each in values], kind)


def _stage_parquet(table: Table, folder: Path, *, flat: bool) -> Staged:
    """Copy Parquet files with their types; structs become columns."""
    number, rows, inner = itertools.count(), 0, set[str]()
    for path in table.files:
        line = 1
        try:
            for batch in pq.ParquetFile(path).iter_batches(ROWS):
                frame = pa.Table.from_batches([batch])
                if flat:
                    frame = _flatten_structs(frame, inner)
                frame, count = _to_micros(frame), frame.num_rows
                frame = frame.append_column(FILE, pa.array([str(path)] * count, pa.string()))
                frame = frame.append_column(LINE, pa.array(range(line, line + count), pa.int64()))
                pq.write_table(frame, folder / f"{next(number):05}.parquet")
                rows, line = rows + count, line + count
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} is no readable Parquet file ({error}); deliver it again") from None
    return Staged(table, folder, rows, [], frozenset(inner))


def _flatten_structs(frame: pa.Table, inner: set[str]) -> pa.Table:
    """Make a column of each field of a struct; the names of those columns are added to `inner`."""
    top = set(frame.column_names)
    while any(pa.types.is_struct(field.type) for field in frame.schema):
        frame = frame.flatten()
    names = [safe_name(name) if name in top else name.replace(".", "_") for name in frame.column_names]
    inner |= {name for name, before in zip(names, frame.column_names, strict=True) if before not in top}
    return frame.rename_columns(names)


def _to_micros(frame: pa.Table) -> pa.Table:
    """Cut times with a zone to microseconds, as ingest does; DuckDB would lose the zone of nanoseconds."""
    for number, field in enumerate(frame.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz and field.type.unit == "ns":
            times = frame.column(number).cast(pa.timestamp("us", field.type.tz), safe=False)
            frame = frame.set_column(number, field.name, times)
    return frame
