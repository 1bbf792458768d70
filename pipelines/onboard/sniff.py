"""Guess the dialect of one file: DuckDB's sniffer judges delimiters and quotes, and the values the header."""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.onboard.dialect import DataError, Dialect, find_encoding, read_sample
from pipelines.onboard.words import known_word
from pipelines.udfs.times import read_iso

# The delimiters that DuckDB's sniffer does not try by itself.
MORE_DELIMITERS: Final = ("::", "||", "|~|", "^", "~", "\x01", "\x1f", "¦", "§")
USUAL_DELIMITERS: Final = ",;\t|"
NUMBER: Final = re.compile(r"[+-]?\d+([.,]\d+)*([eE][+-]?\d+)?")
SPREADSHEETS: Final = (".xlsx", ".xlsm", ".xlsb", ".ods")
LINES: Final = 500  # lines that a header is judged by


class _Sniffed(NamedTuple):
    delimiter: str
    quote: str | None
    escape: str | None
    columns: int


def sniff_file(path: Path, given: Mapping[str, str]) -> Dialect:
    """Find out how a file is written.

    Args:
        path: the file.
        given: what a person said: `encoding`, `delimiter` and `header` (names with commas between them).

    Raises:
        DataError: the file is empty, or neither Parquet nor text.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        try:
            return Dialect("parquet", names=tuple(pq.read_schema(path).names))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} is no readable Parquet file ({error}); deliver it again") from None
    if start.startswith(b"PK\x03\x04"):
        if path.suffix.lower() in SPREADSHEETS:
            raise DataError(f"{path} is a spreadsheet; save it as CSV")
        raise DataError(f"{path} is a zip archive; unpack it first")
    encoding = given.get("encoding") or find_encoding(path)
    dialect = Dialect("csv", encoding)
    sample = read_sample(path, dialect)
    if not sample.strip():
        raise DataError(f"{path} has no rows; remove it, or deliver it again")
    if sample.lstrip()[0] in "{[":
        return replace(dialect, format="json")
    if "\0" in sample:
        raise DataError(f"{path} is neither Parquet nor text; deliver Parquet, CSV or JSON lines")
    return _sniff_csv(sample, dialect, given)


def _sniff_csv(sample: str, dialect: Dialect, given: Mapping[str, str]) -> Dialect:
    """Add delimiter, quote, escape and header to the dialect of a CSV file."""
    found = _choose(sample, given.get("delimiter", "").replace("\\t", "\t"))
    quote = found.quote if len(found.delimiter) == 1 else None
    if quote is None and len(found.delimiter) == 1 and '"' not in sample:
        quote = '"'  # no field of the sample is quoted, and others may be
    rows = _split(sample, found.delimiter, quote)
    names = tuple(name.strip() for name in rows[0])
    dialect = replace(dialect, delimiter=found.delimiter, quote=quote, escape=found.escape, names=names)
    named = tuple(name.strip() for name in given.get("header", "").split(","))
    if len(named) == len(rows[0]) and "header" in given:  # the names may be those of another table
        names = named
    elif has_header(rows):
        return dialect
    else:
        names = tuple(f"column{number}" for number in range(1, len(rows[0]) + 1))
    return replace(dialect, header=names, names=names)


def _choose(sample: str, given: str) -> _Sniffed:
    """Return the dialect with the most columns that fits the sample."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as file:
        file.write(sample)
        file.flush()
        if given:
            return _sniff(file.name, given) or _Sniffed(given, '"', None, 1)
        first = _sniff(file.name, None) or _Sniffed(",", '"', None, 1)
        line = sample.split("\n", 1)[0]
        tried = (*MORE_DELIMITERS, *(USUAL_DELIMITERS if first.columns == 1 else ""))
        more = [_sniff(file.name, each) for each in tried if each in line]
    return max([first, *filter(None, more)], key=lambda each: each.columns)


def _sniff(path: str, delimiter: str | None) -> _Sniffed | None:
    option = ", delim=$delimiter" if delimiter else ""
    asked = "SELECT Delimiter, Quote, Escape, len(Columns) FROM sniff_csv($path, "
    asked += "all_varchar=true, ignore_errors=true"
    values = {"path": path} | ({"delimiter": delimiter} if delimiter else {})
    try:
        row = duckdb.connect().execute(f"{asked}{option})", values).fetchone()
    except duckdb.Error:
        return None
    assert row is not None
    quote, escape = (None if letter in ("(empty)", "\0", "") else str(letter) for letter in row[1:3])
    return _Sniffed(str(row[0]), quote, escape if escape != quote and quote else None, int(row[3]))


def _split(sample: str, delimiter: str, quote: str | None) -> list[list[str]]:
    """Split the first lines of a sample into fields."""
    lines = [line for line in sample.split("\n") if line.strip()][:LINES]
    csv.field_size_limit(1 << 30)  # a field may be as long as the sample
    if len(delimiter) > 1:
        return [line.split(delimiter) for line in lines]
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return [row for row in csv.reader(lines, delimiter=delimiter, quotechar=quote, quoting=quoting) if row]


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row names the columns.

    Names are text and no numbers or times, and they do not come back as values. Known words decide.

    Args:
        rows: the fields of the first lines.
    """
    first = [cell.strip() for cell in rows[0]]
    if any(NUMBER.fullmatch(cell) or _is_time(cell) for cell in first):
        return False
    if any(known_word(cell) for cell in first):
        return True
    named = [cell for cell in first if cell]
    below = [{row[i] for row in rows[1:] if i < len(row)} for i in range(len(first))]
    if len(set(named)) < len(named) or any(cell in values for cell, values in zip(first, below, strict=True)):
        return False
    shaped = [values and all(_shape(value) == "number" for value in values if value) for values in below]
    return any(shaped) or all(not any(letter.isdigit() for letter in cell) for cell in named)


def _shape(value: str) -> str:
    return "number" if NUMBER.fullmatch(value.strip()) or _is_time(value.strip()) else "text"


def _is_time(text: str) -> bool:
    try:
        return read_iso(text) is not None
    except (ValueError, OSError):
        return False
