"""Turn the lines of CSV and JSON-lines files into rows of the wanted columns, as bodies of UDFs.

A file yields its rows (`row`), the names of its columns (`header`), and the reason why it can't be read
(`fault`), so that one pass finds the faults of all files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

import pyarrow as pa

from pipelines.udfs.text_files import (
    LINE_FEED,
    CsvReader,
    FileFault,
    JsonReader,
    Record,
    TextSpec,
    check_required,
)
from pipelines.udfs.value_columns import ARROW_TYPES, combine, read_column, show
from pipelines.udfs.values import ValueRules, WantedColumn

ROWS = 8192  # rows of a batch that is yielded
# The first bytes of files that are not text.
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PAR1": "Parquet",
}
WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # byte order marks
STATUS, FILE, LOCATION, RAW = "_status", "_file", "_location", "_raw"


def text_columns(spec: TextSpec) -> list[str]:
    """Return the names of the text columns that follow the wanted ones."""
    filters = [f"_where_{i}" for i in range(len(spec.where))]
    return ["_reason", "_value", *filters, STATUS, FILE, LOCATION, RAW]


def schema_of(spec: TextSpec) -> pa.Schema:
    """Return the schema of the batches that `read_lines` and `read_contents` yield."""
    fields = [(column.name, ARROW_TYPES[column.type]) for column in spec.wanted]
    return pa.schema([*fields, *((name, pa.string()) for name in text_columns(spec))])


def read_lines(batches: Iterable[pa.RecordBatch], spec: TextSpec) -> Iterator[pa.RecordBatch]:
    """Read files that Spark has split into lines.

    Args:
        batches: `file`, `start` (bytes before the first line) and `line` (bytes), in the order of each file.
        spec: what is read, and how the files are written.
    """
    flat = (
        row
        for batch in batches
        for row in zip(*(batch.column(name).to_pylist() for name in ("file", "start", "line")), strict=True)
    )
    for (file, start), rows in groupby(flat, key=lambda row: row[:2]):
        yield from read_file(file, start, (line for _, _, line in rows), spec)


def read_contents(
    batches: Iterable[pa.RecordBatch], spec: TextSpec, compression: str | None
) -> Iterator[pa.RecordBatch]:
    """Read files that are each one value, because of their encoding or their compression.

    Args:
        batches: `file` and `content` (bytes).
        spec: what is read, and how the files are written.
        compression: pyarrow's name of the compression, or None.
    """
    for batch in batches:
        for file, content in zip(*(batch.column(n).to_pylist() for n in ("file", "content")), strict=True):
            yield from read_file(file, 0, _split_lines(content, spec.encoding, compression), spec)


def _split_lines(content: bytes, encoding: str, compression: str | None) -> Iterator[bytes]:
    """Split a complete file into lines; they are UTF-8, whatever the encoding of the file is."""
    if compression:
        try:
            with pa.input_stream(pa.BufferReader(content), compression=compression) as stream:
                content = stream.read()
        except (OSError, pa.ArrowException) as error:
            raise FileFault(f"this file is not a complete {compression} file ({error})") from None
    text = content.decode(encoding, "replace").removeprefix("\ufeff")
    for line in (
        text.replace("\r\n", LINE_FEED).replace("\r", LINE_FEED).removesuffix(LINE_FEED).split(LINE_FEED)
    ):
        yield line.encode()


def read_file(file: str, start: int, lines: Iterator[bytes], spec: TextSpec) -> Iterator[pa.RecordBatch]:
    """Yield the rows, column names and faults of a file or of a part of it.

    Args:
        file: the path of the file.
        start: bytes of the file before the first line.
        lines: the lines without line breaks.
        spec: what is read, and how the file is written.
    """
    reader = CsvReader(spec) if spec.format == "csv" else JsonReader(spec)
    where = f" after byte {start:,}" if start else ""
    chunk: list[Record] = []
    try:
        for record in reader.records(_decode(lines, spec.encoding)):
            chunk.append(record)
            if len(chunk) == ROWS:
                yield _to_batch(chunk, file, where, spec)
                chunk = []
        if chunk:
            yield _to_batch(chunk, file, where, spec)
        if names := reader.names():
            yield _say("header", json.dumps(names), file, spec)
            check_required(spec, names)
    except FileFault as fault:
        yield _say("fault", str(fault), file, spec)


def _decode(lines: Iterator[bytes], encoding: str) -> Iterator[str]:
    """Decode the lines of a file; bytes that are not text become U+FFFD."""
    wide = LINE_FEED.encode(encoding) != b"\n"  # `_split_lines` has turned such files into UTF-8
    for number, line in enumerate(lines):
        if number == 0:
            _check_start(line)
        text = line.decode("utf-8" if wide else encoding, "replace")
        yield text.removeprefix("\ufeff") if number == 0 else text


def _check_start(line: bytes) -> None:
    for magic, name in COMPRESSED.items():
        if line.startswith(magic):
            raise FileFault(
                f"this file is {name}, not text; name it by what it is (such as .gz), set ingest.compression "
                "or ingest.format, or deliver it unpacked"
            )
    for magic, name in WIDE.items():
        if line.startswith(magic):
            raise FileFault(f"this file is {name}; set ingest.encoding: {name}, or deliver it in UTF-8")


def _to_batch(records: Sequence[Record], file: str, where: str, spec: TextSpec) -> pa.RecordBatch:
    """Turn records into a batch with the columns of `schema_of`."""
    values = [record.values or {} for record in records]
    sources: list[list[object]] = [[row.get(column.source) for row in values] for column in spec.wanted]
    reads = [
        read_column(_as_array(source, column, spec), column, spec.rules)
        for source, column in zip(sources, spec.wanted, strict=True)
    ]
    rows = combine(reads, spec.wanted, sources)
    reasons, shown = (rows.field(name).to_pylist() for name in ("_reason", "_value"))
    for i, record in enumerate(records):
        if record.values is None:
            reasons[i], shown[i] = "malformed_row", show(f"{record.problem}: {record.raw}")
    columns: dict[str, Any] = {column.name: rows.field(column.name) for column in spec.wanted}
    columns |= {"_reason": reasons, "_value": shown}
    for i, name in enumerate(spec.where):
        columns[f"_where_{i}"] = [_as_text(row.get(name), spec.rules) for row in values]
    columns[STATUS] = ["row"] * len(records)
    columns[FILE] = [file] * len(records)
    columns[LOCATION] = [f"line {record.line:,}{where}" for record in records]
    columns[RAW] = [_valid(record.raw) for record in records]
    return pa.RecordBatch.from_pydict(columns, schema_of(spec))


def _as_array(source: list[object], column: WantedColumn, spec: TextSpec) -> Any:
    """Turn a text column of CSV into an array, which is read faster than Python values."""
    return pa.array(source, pa.string()) if spec.format == "csv" and column.type == "string" else source


def _as_text(value: object, rules: ValueRules) -> str | None:
    """Turn a source value into text for a filter in SQL."""
    if value is None or isinstance(value, str):
        return None if value is None or value.strip().lower() in rules.nulls else _valid(value)
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(
        value, default=float, ensure_ascii=False
    )  # numbers with a fraction are decimals in lists


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _say(status: str, text: str, file: str, spec: TextSpec) -> pa.RecordBatch:
    """Make a row that says something about its file."""
    schema = schema_of(spec)
    said = {STATUS: status, "_value": _valid(text), FILE: file}
    return pa.RecordBatch.from_pydict({name: [said.get(name)] for name in schema.names}, schema)
