"""Split CSV and JSON-lines files into records, before their values are read.

CSV follows RFC 4180: a quoted field may hold delimiters, doubled quotes and line breaks. A line that breaks
these rules is malformed. If it has an odd number of quotes, it has opened a field whose end is unknown. Then
each line up to the one that closes the field is malformed too, as a part of a broken row must not be read as
a row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipelines.udfs.value_columns import show
from pipelines.udfs.values import ValueRules, WantedColumn
from pipelines.udfs.whole_numbers import WrittenFloat

LONGEST = 16 << 20  # characters of a record; in a longer one, a quote was never closed
MOST_KEYS = 2000  # JSON keys that a file reports
LINE_FEED = "\n"


@dataclass(frozen=True)
class TextSpec:
    """What is read, and how the files are written."""

    format: Literal["csv", "json"]
    wanted: tuple[WantedColumn, ...]
    where: tuple[str, ...]  # source columns of the filter; they are returned as text: `_where_0` and so on
    rules: ValueRules
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str | None = '"'  # None: no field is quoted
    escape: str | None = None  # None: a quote in a field is doubled
    header: tuple[str, ...] | None = None  # the names of the columns where files have no header


class Record(NamedTuple):
    """One row of a file as it was read."""

    line: int  # of the file, from 1
    raw: str  # the text of the row
    values: Mapping[str, object] | None  # by source column; None for a malformed row
    problem: str = ""  # why the row is malformed


class FileFault(ValueError):
    """A file can't be read; the message says why."""


class _Feed:
    """The lines of a file as the CSV parser takes them, and the lines of the current record."""

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
        """Begin a new record."""
        self.taken, self.size = [], 0


class _TooLong(Exception):
    """A record is longer than `LONGEST`."""


class CsvReader:
    """Reads the records of one CSV file."""

    def __init__(self, spec: TextSpec) -> None:
        self.spec = spec
        self.header: list[str] | None = list(spec.header) if spec.header else None

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return self.header or []

    def records(self, lines: Iterator[str]) -> Iterator[Record]:
        """Yield all rows below the header."""
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
        """Yield the fields of each record, or what is wrong with the lines that the parser took for it."""
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
        """Yield the problem of each line up to the one that closes the quote of a broken line."""
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
            raise FileFault(
                f"the header has {twice[0]!r} {names.count(twice[0])} times; give this name to one column"
            )
        check_required(self.spec, names)


class JsonReader:
    """Reads the records of one JSON-lines file."""

    def __init__(self, spec: TextSpec) -> None:
        self._seen: dict[str, None] = {}
        self._named = {column.source for column in spec.wanted} | set(spec.where)

    def records(self, lines: Iterator[str]) -> Iterator[Record]:
        """Yield one row for each line, and several for a line that is an array of objects."""
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
            return Record(number, raw, None, "the line is not an object")
        if found.repeated & self._named:
            return Record(
                number, raw, None, f"the line has {sorted(found.repeated & self._named)[0]!r} twice"
            )
        if len(self._seen) < MOST_KEYS or self._named - self._seen.keys():
            self._seen.update(dict.fromkeys(found))
        return Record(number, raw, found)

    def names(self) -> list[str]:
        """Return the keys that any object had."""
        return list(self._seen)


class _Pairs(dict[str, Any]):
    """A JSON object that records which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {name for name in self if names.count(name) > 1} if len(self) < len(pairs) else set()


def shown(names: Sequence[str]) -> list[str | None]:
    """Show the names of columns in a message."""
    return [show(name) for name in names]


def check_required(spec: TextSpec, names: Sequence[str]) -> None:
    """Refuse a file that lacks a required column.

    Raises:
        FileFault: a column is missing; the message names it and the columns of the file.
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
