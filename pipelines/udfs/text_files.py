"""CSV and JSON-lines files to records, before their values are read.

CSV is RFC 4180: a quoted field may hold delimiters, doubled quotes and line breaks. A line that breaks these
rules is malformed. Where its quotes are odd in number, it has opened a field whose end is unknown; then each
line up to the one that closes it is malformed too, as a part of a broken row must not pass for a row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipelines.udfs.value_columns import show
from pipelines.udfs.values import ValueRules, WantedColumn, WrittenFloat

LONGEST = 16 << 20  # characters of a record; a longer one is a quote that was never closed
MOST_KEYS = 2000  # names of JSON keys that a file reports
LINE_FEED = "\n"


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


class CsvReader:
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
        check_required(self.spec, names)


class JsonReader:
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
                found = json.loads(line, parse_float=WrittenFloat, object_pairs_hook=_Pairs)
            except (ValueError, RecursionError, ArithmeticError) as error:
                yield Record(number, line, None, str(error))
                continue
            many = isinstance(found, list)
            for each in found if isinstance(found, list) else [found]:
                raw = json.dumps(each, default=float, ensure_ascii=False) if many else line
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


def shown(names: Sequence[str]) -> list[str | None]:
    """Names of columns for people."""
    return [show(name) for name in names]


def check_required(spec: TextSpec, names: Sequence[str]) -> None:
    """Refuse a file without a required column.

    Raises:
        FileFault: naming the column and those that are there.
    """
    for column in spec.wanted:
        if column.required and column.source not in names:
            raise FileFault(
                f"the required column {column.source!r} (our {column.name}) is missing; the file has "
                f"{shown(names)}. Deliver it, or map another column to {column.name}"
            )
    for name in spec.where:
        if name not in names:
            raise FileFault(
                f"the column {name!r}, which `where` needs, is missing; the file has {shown(names)}"
            )
