"""UDF body: the lines of CSV and JSON-lines files to rows of the wanted columns.

CSV is RFC 4180: a quoted field may hold delimiters, doubled quotes and line breaks. A line that breaks these
rules is malformed. Where its quotes are odd in number, it has opened a field whose end is unknown; then each
line up to the one that closes it is malformed too, as a part of a broken row must not pass for a row.

A file yields its rows (`row`), the names of its columns (`header`), and what keeps all of it from being read
(`fault`), so that the faults of all files come to light in one pass.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from pipelines.udfs.values import ARROW_TYPES, ValueRules, WantedColumn, combine, read_column, show

ROWS = 8192  # of a batch that is yielded
LONGEST = 16 << 20  # characters of a record; a longer one is a quote that was never closed
MOST_KEYS = 2000  # names of JSON keys that a file reports
LINE_FEED = "\n"
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK": "zip",
    b"PAR1": "Parquet",
}
WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
STATUS, FILE, LOCATION, RAW = "_status", "_file", "_location", "_raw"


@dataclass(frozen=True)
class TextSpec:
    """What is read, and how the files are written.

    `where` are source columns that a filter looks at; they come out as text, named `_where_0` and so on.
    """

    format: Literal["csv", "json"]
    wanted: tuple[WantedColumn, ...]
    where: tuple[str, ...]
    rules: ValueRules
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    header: tuple[str, ...] | None = None  # of files that have none


class Record(NamedTuple):
    """A row as it was read: source values by name, None for a malformed one."""

    line: int
    raw: str
    values: Mapping[str, object] | None
    problem: str = ""


class FileFault(ValueError):
    """What keeps a file from being read."""


def schema_of(spec: TextSpec) -> pa.Schema:
    """Of the batches that `read_text` yields."""
    texts = [
        "_reason",
        "_value",
        *(f"_where_{i}" for i in range(len(spec.where))),
        STATUS,
        FILE,
        LOCATION,
        RAW,
    ]
    fields = [(column.name, ARROW_TYPES[column.type]) for column in spec.wanted]
    return pa.schema([*fields, *((name, pa.string()) for name in texts)])


def read_lines(batches: Iterable[pa.RecordBatch], spec: TextSpec) -> Iterator[pa.RecordBatch]:
    """Rows of files that Spark has cut into lines.

    Args:
        batches: `file`, `start` (bytes before the first line), `line` (bytes), in the order of each file.
    """
    flat = (
        row
        for batch in batches
        for row in zip(*(batch.column(name).to_pylist() for name in ("file", "start", "line")), strict=True)
    )
    for (file, start), rows in groupby(flat, key=lambda row: row[:2]):
        yield from read_file(file, start, (row[2] for row in rows), spec)


def read_contents(
    batches: Iterable[pa.RecordBatch], spec: TextSpec, compression: str | None
) -> Iterator[pa.RecordBatch]:
    """Rows of files that come whole, because of their encoding or their compression.

    Args:
        batches: `file`, `content` (bytes).
        compression: as pyarrow names it, or None.
    """
    for batch in batches:
        for file, content in zip(*(batch.column(n).to_pylist() for n in ("file", "content")), strict=True):
            yield from read_file(file, 0, _cut(content, spec.encoding, compression), spec)


def _cut(content: bytes, encoding: str, compression: str | None) -> Iterator[bytes]:
    """Lines of a whole file, as bytes of UTF-8 whatever the encoding."""
    if compression:
        try:
            with pa.input_stream(pa.BufferReader(content), compression=compression) as stream:
                content = stream.read()
        except (OSError, pa.ArrowException) as error:
            raise FileFault(f"this file is no whole {compression} file ({error})") from None
    text = content.decode(encoding, "replace").removeprefix("\ufeff")
    for line in (
        text.replace("\r\n", LINE_FEED).replace("\r", LINE_FEED).removesuffix(LINE_FEED).split(LINE_FEED)
    ):
        yield line.encode()


def read_file(file: str, start: int, lines: Iterator[bytes], spec: TextSpec) -> Iterator[pa.RecordBatch]:
    """Rows, column names and faults of one file, or of the part of it that begins at byte `start`."""
    reader = _CsvReader(spec) if spec.format == "csv" else _JsonReader(spec)
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
            _check_required(spec, names)
    except FileFault as fault:
        yield _say("fault", str(fault), file, spec)


def _decode(lines: Iterator[bytes], encoding: str) -> Iterator[str]:
    """Text of the lines; bytes that are none become U+FFFD."""
    wide = LINE_FEED.encode(encoding) != b"\n"  # it was decoded when the file was cut into lines
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


class _Feed:
    """Hands lines to the CSV parser and remembers those of the record at hand."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines, self.number, self.size = lines, 0, 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.size > LONGEST:
            raise _TooLong
        line = next(self.lines)
        self.number += 1
        self.size += len(line)
        self.taken.append(line)
        return line + LINE_FEED

    def begin(self) -> None:
        """A new record begins."""
        self.taken, self.size = [], 0


class _TooLong(Exception):
    """A record that is longer than any is."""


class _CsvReader:
    """The records of one CSV file."""

    def __init__(self, spec: TextSpec) -> None:
        self.spec = spec
        self.header: list[str] | None = list(spec.header) if spec.header else None

    def names(self) -> list[str]:
        """Of the columns."""
        return self.header or []

    def records(self, lines: Iterator[str]) -> Iterator[Record]:
        """All rows below the header."""
        feed = _Feed(lines)
        parsed = self._split(feed) if len(self.spec.delimiter) > 1 else self._parse(feed)
        for row in parsed:
            raw, first = LINE_FEED.join(feed.taken), feed.number - len(feed.taken) + 1
            if isinstance(row, str):
                yield from (Record(first + i, line, None, row) for i, line in enumerate(feed.taken))
            elif self.header is None:
                self.header = [name.strip() for name in row]
                self._check_header(self.header)
            elif row:
                yield self._record(first, raw, row)
            feed.begin()

    def _record(self, line: int, raw: str, row: Sequence[str]) -> Record:
        names = self.names()
        if len(row) != len(names):
            return Record(line, raw, None, f"{len(row)} fields where the header has {len(names)}")
        return Record(line, raw, dict(zip(names, row, strict=True)))

    def _split(self, feed: _Feed) -> Iterator[list[str] | str]:
        for line in feed:
            yield line.removesuffix(LINE_FEED).split(self.spec.delimiter) if line.strip() else []

    def _parse(self, feed: _Feed) -> Iterator[list[str] | str]:
        """Fields of each record, or what is wrong with the lines that were taken for it."""
        spec, csv_limit = self.spec, 2**31 - 1
        csv.field_size_limit(csv_limit)
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if spec.quote else csv.QUOTE_NONE
        parser = csv.reader(
            feed, delimiter=spec.delimiter, quotechar=spec.quote, escapechar=spec.escape, quoting=quoting,
            doublequote=spec.quote is not None, strict=True,
        )  # fmt: skip
        while True:
            try:
                yield next(parser)
            except StopIteration:
                return
            except csv.Error as error:
                yield from self._close(feed, str(error))
            except _TooLong:
                feed.size = 0
                yield f"a quote that is not closed within {LONGEST:,} characters"
                for _ in feed:
                    feed.size = 0
                    yield "it follows a quote that is never closed"

    def _close(self, feed: _Feed, problem: str) -> Iterator[str]:
        """Lines up to the one that closes what a broken one has opened."""
        quote = self.spec.quote or '"'
        odd = sum(line.count(quote) for line in feed.taken) % 2
        yield problem
        while odd:
            feed.size = 0
            line = next(feed, None)
            if line is None:
                return
            odd = (odd + line.count(quote)) % 2
            yield "it follows a quote that is not closed"

    def _check_header(self, names: list[str]) -> None:
        wanted = {column.source for column in self.spec.wanted} | set(self.spec.where)
        if twice := sorted(name for name in wanted if names.count(name) > 1):
            raise FileFault(f"the header has {twice[0]!r} {names.count(twice[0])} times; name one column so")
        _check_required(self.spec, names)


class _JsonReader:
    """The records of one JSON-lines file."""

    def __init__(self, spec: TextSpec) -> None:
        self._seen: dict[str, None] = {}
        self._named = {column.source for column in spec.wanted} | set(spec.where)

    def records(self, lines: Iterator[str]) -> Iterator[Record]:
        """A row a line; a line that is an array of objects has several."""
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line, parse_float=Decimal, object_pairs_hook=_Pairs)
            except (ValueError, RecursionError, ArithmeticError) as error:
                yield Record(number, line, None, str(error))
                continue
            many = isinstance(found, list)
            for each in found if isinstance(found, list) else [found]:
                raw = json.dumps(each, default=str, ensure_ascii=False) if many else line
                yield self._record(number, raw, each)

    def _record(self, number: int, raw: str, found: object) -> Record:
        if not isinstance(found, _Pairs):
            return Record(number, raw, None, "the line is no object")
        if found.repeated & self._named:
            return Record(
                number, raw, None, f"the line has {sorted(found.repeated & self._named)[0]!r} twice"
            )
        if len(self._seen) < MOST_KEYS or self._named - self._seen.keys():
            self._seen.update(dict.fromkeys(found))
        return Record(number, raw, found)

    def names(self) -> list[str]:
        """Keys that any object had."""
        return list(self._seen)


class _Pairs(dict[str, Any]):
    """A JSON object that knows which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in self if names.count(name) > 1} if len(self) < len(pairs) else set()


def _check_required(spec: TextSpec, names: Sequence[str]) -> None:
    for column in spec.wanted:
        if column.required and column.source not in names:
            raise FileFault(
                f"the required column {column.source!r} (our {column.name}) is missing; the file has "
                f"{[show(name) for name in names]}. Deliver it, or map another column to {column.name}"
            )


def _to_batch(records: Sequence[Record], file: str, where: str, spec: TextSpec) -> pa.RecordBatch:
    """Records to the columns of `schema_of`."""
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
    """Text columns of CSV are read a whole array at a time."""
    return pa.array(source, pa.string()) if spec.format == "csv" and column.type == "string" else source


def _as_text(value: object, rules: ValueRules) -> str | None:
    """A source value for a filter in SQL."""
    if value is None or isinstance(value, str):
        return None if value is None or value.strip().lower() in rules.nulls else _valid(value)
    return json.dumps(value, default=str, ensure_ascii=False)


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _say(status: str, text: str, file: str, spec: TextSpec) -> pa.RecordBatch:
    """A row that says something of its file."""
    schema = schema_of(spec)
    said = {STATUS: status, "_value": _valid(text), FILE: file}
    return pa.RecordBatch.from_pydict({name: [said.get(name)] for name in schema.names}, schema)
