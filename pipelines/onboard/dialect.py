"""Find out how a file is written: format, compression, encoding and, for CSV, delimiter, quote and header."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import pyarrow as pa
from charset_normalizer import from_bytes

from lime_model.errors import LimeError

PACKED: Final = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
CHUNK: Final = 1 << 20  # bytes that are read at once
SAMPLE: Final = 1 << 20  # characters that the dialect is guessed from
EVIDENCE: Final = 64 << 10  # bytes of lines that are not ASCII, for the guess of the encoding
# Encodings that files of shops and logs have; others are named by `--encoding`.
KNOWN_ENCODINGS: Final = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "shift_jis", "euc_jp"),
    *("gb18030", "big5", "euc_kr", "cp949"),
]
# Files of the West: a guess of their encoding is only believed where cp1252 gives no words.
WESTERN: Final = re.compile(r"[ÀÂÄÇÈÉÊËÎÏÔÖÙÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûü£€°º“”‘’–]")

SEPARATOR_LINE: Final = re.compile(r'(?i)"?sep=(.|\\t)"?')


class DataError(LimeError):
    """The data is missing or unreadable, or it does not say enough to write settings."""


@dataclass(frozen=True)
class Dialect:
    """How the files of a table are written."""

    format: Literal["parquet", "csv", "json"]
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    header: tuple[str, ...] | None = None  # the names of the columns where files have no header line
    names: tuple[str, ...] = ()  # the columns of the first file, in its order


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked; its first bytes say how it is packed.

    Raises:
        DataError: the file can't be read or unpacked.
    """
    try:
        with pa.input_stream(str(path), compression=find_compression(path)) as stream:
            yield stream
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read ({error}); deliver it again, or remove it") from None


def read_text_lines(path: Path, dialect: Dialect) -> Iterator[str]:
    """Yield the lines of a text file without their line breaks; bytes that are not text become U+FFFD.

    A first line that only tells Excel the delimiter is left out.
    """
    with open_bytes(path) as stream:
        text = io.TextIOWrapper(stream, encoding=dialect.encoding, errors="replace")
        for number, line in enumerate(text):
            line = line.removesuffix("\n")
            if number == 0:
                line = line.removeprefix("\ufeff")
                if dialect.format == "csv" and is_separator_line(line):
                    continue
            yield line


def is_separator_line(line: str) -> bool:
    """Whether a first line only tells Excel what separates the fields, such as `sep=;`."""
    return SEPARATOR_LINE.fullmatch(line.strip()) is not None


def find_compression(path: Path) -> str | None:
    """Return how a file is packed, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for magic, name in PACKED.items() if start.startswith(magic)), None)


def find_encoding(path: Path) -> str:
    """Find the encoding of a whole file: a mark at its start, UTF-8 if all of it is, or the likeliest one."""
    with open_bytes(path) as stream:
        start = stream.read(4096)
        for mark, name in MARKS:
            if start.startswith(mark):
                return name
        if wide := _find_wide(start):
            return wide
        decoder, evidence, rest = codecs.getincrementaldecoder("utf-8")(), bytearray(), start
        broken = False
        while rest:
            if not broken:
                try:
                    decoder.decode(rest)
                except UnicodeDecodeError:
                    broken = True
            if len(evidence) < EVIDENCE and not rest.isascii():
                evidence += b"\n".join(line for line in rest.split(b"\n") if not line.isascii())[:EVIDENCE]
            rest = stream.read(CHUNK)
    return _guess_encoding(bytes(evidence)) if broken else "utf-8"


def _find_wide(start: bytes) -> str:
    """Return the encoding of text in units of two bytes without a mark; every other byte of it is null."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if 4 * max(even, odd) <= len(start):
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"


def _guess_encoding(evidence: bytes) -> str:
    """Return the likeliest encoding of lines that are not UTF-8."""
    try:
        western = evidence.decode("cp1252")
    except UnicodeDecodeError:
        western = ""
    foreign = [letter for letter in western if not letter.isascii()]
    if foreign and len(WESTERN.findall(western)) >= 0.95 * len(foreign) and _is_sparse(western):
        return "cp1252"
    best = from_bytes(evidence, cp_isolation=KNOWN_ENCODINGS).best()
    return best.encoding if best else "cp1252"


def _is_sparse(text: str) -> bool:
    """Whether letters with accents are few next to plain ones, as in the languages of the West."""
    letters = [letter for letter in text if letter.isalpha()]
    return sum(not letter.isascii() for letter in letters) <= 0.35 * len(letters)


def read_sample(path: Path, dialect: Dialect) -> str:
    """Return the first lines of a text file, up to `SAMPLE` characters."""
    taken: list[str] = []
    size = 0
    for line in read_text_lines(path, dialect):
        taken.append(line)
        size += len(line) + 1
        if size >= SAMPLE:
            break
    return "\n".join(taken) + "\n" if taken else ""
