"""Find the files of a drop and put those that are alike together: each group is one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from pipelines.ingest.drop_names import is_hidden, is_ignored, local_days
from pipelines.onboard.dialect import DataError, Dialect
from pipelines.onboard.sniff import sniff_file

SOURCES: Final = ("events", "items", "users")
# Files next to data that describe it.
PAPERS: Final = ("readme", "license", "licence", "changelog")
ENDINGS: Final = frozenset(
    (
        "csv",
        "tsv",
        "txt",
        "dat",
        "data",
        "json",
        "jsonl",
        "ndjson",
        "parquet",
        "gz",
        "bz2",
        "zst",
        "lz4",
        "snappy",
    )
)
MOST_BYTES: Final = 2 << 30  # of drops in folders of days that are looked at
MOST_SNIFFED: Final = 40  # files of one table whose dialect is looked at one by one
DIGITS: Final = re.compile(r"[0-9]+")


class Table(NamedTuple):
    """Files with the same columns."""

    name: str
    files: list[Path]
    dialect: Dialect


class Found(NamedTuple):
    """What a path holds."""

    tables: list[Table]
    days: dict[str, list[str]]  # the days of each source where the folders are those of ingest; else empty
    root: Path  # the folder of the drops, if ingest can read them where they are


def find_tables(root: Path, given: Mapping[str, str]) -> Found:
    """Find the tables at a path.

    Args:
        root: a file, or a folder with files of any depth.
        given: what a person said about the dialect.

    Raises:
        DataError: there are no files, or one of them can't be read.
    """
    if not root.exists():
        raise DataError(f"there is nothing at {root}; correct the path of the drops")
    if root.is_dir() and root.name == "events" and local_days(root):
        root = root.parent
    days = {source: local_days(root / source) for source in SOURCES} if root.is_dir() else {}
    if days.get("events"):
        tables = [_one_table(source, root / source, given) for source in SOURCES if days[source]]
        return Found(tables, {source: found for source, found in days.items() if found}, root)
    files = list_files(root)
    if not files:
        raise DataError(f"{root} has no files; write Parquet, CSV or JSON lines there, or correct the path")
    return Found(_group(files, root, given), {}, root)


def list_files(root: Path) -> list[Path]:
    """List the files that ingest would read, sorted: not those whose name begins with `_` or `.`."""
    if root.is_file():
        return [root]
    found = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and path.stat().st_size and not any(map(is_hidden, parts)):
            found.append(path)
    return [path for path in found if not is_ignored(path.name) and not _is_paper(path)]


def day_files(root: Path, source: str, day: str) -> list[Path]:
    """List the files of one day of a source.

    Args:
        root: the folder of the drops.
        source: `events`, `items` or `users`.
        day: the day as `YYYY-MM-DD`.
    """
    return list_files(root / source / f"ds={day}")


def newest_files(files: list[Path]) -> list[Path]:
    """Return the newest files of folders of days up to `MOST_BYTES`, and the oldest one."""
    taken: list[Path] = []
    size = 0
    for path in reversed(files):
        size += path.stat().st_size
        if size > MOST_BYTES and taken:
            return [files[0], *reversed(taken)]
        taken.append(path)
    return files


def _is_paper(path: Path) -> bool:
    return path.stem.lower().startswith(PAPERS) or path.suffix.lower() in (".md", ".pdf", ".html", ".yaml")


def _one_table(source: str, folder: Path, given: Mapping[str, str]) -> Table:
    days = {f"ds={day}" for day in local_days(folder)}
    for path in sorted(folder.iterdir()):
        if not is_hidden(path.name) and not (path.is_dir() and path.name in days):
            raise DataError(
                f"{path} is not a day's drop; name folders ds=YYYY-MM-DD, or begin the name with _ to "
                "have it ignored"
            )
    files = list_files(folder)
    if not files:
        raise DataError(f"the folders of {folder} are all empty; deliver files, or correct the path")
    return Table(source, files, _common_dialect(files, given))


def _group(files: list[Path], root: Path, given: Mapping[str, str]) -> list[Table]:
    """Put files with the same columns together; of many with alike names only some are looked at."""
    alike: dict[tuple[str, str], list[Path]] = {}
    for path in files:
        alike.setdefault((_stem(path, root), path.suffix), []).append(path)
    tables: dict[tuple[str, tuple[str, ...]], Table] = {}
    for (stem, _), group in alike.items():
        dialect = _common_dialect(group, given)
        # Files without names of columns are one table only if their own names are alike.
        key = (
            dialect.format,
            (stem, *dialect.names) if dialect.header or not dialect.names else dialect.names,
        )
        if key in tables:
            tables[key].files.extend(group)
        else:
            tables[key] = Table(stem or root.stem, list(group), dialect)
    return list(tables.values())


def _stem(path: Path, root: Path) -> str:
    """Return the name of a file without dates, numbers and endings, or that of its folder if this is all."""
    named = [part for part in path.name.split(".") if part.lower() not in ENDINGS]
    stem = DIGITS.sub("", ".".join(named)).strip("-_ =.").lower()
    if len(stem) > 2 and stem not in ("part", "data", "chunk"):
        return stem
    folders = [DIGITS.sub("", part).strip("-_ =.").lower() for part in path.relative_to(root).parts[:-1]]
    above = [name for name in folders if len(name) > 2 and name not in ("year", "month", "day", "date")]
    return above[-1] if above else stem


def _common_dialect(files: list[Path], given: Mapping[str, str]) -> Dialect:
    """Return the dialect of all files; files that are written differently are an error."""
    some = files if len(files) <= MOST_SNIFFED else files[:: len(files) // MOST_SNIFFED + 1]
    found = [sniff_file(path, given) for path in some]
    first = found[0]
    encodings = {dialect.encoding for dialect in found} - {"utf-8"}
    if len(encodings) > 1:
        raise DataError(
            f"{files[0]} and its neighbours have the encodings {', '.join(sorted(encodings))}; look at each "
            "alone, or deliver all in one encoding"
        )
    for path, dialect in zip(some, found, strict=True):
        if (dialect.format, dialect.delimiter) != (first.format, first.delimiter) and dialect.names:
            raise DataError(
                f"{path} is {dialect.format} with the delimiter {dialect.delimiter!r}, and {files[0]} is "
                f"{first.format} with {first.delimiter!r}; deliver all files of a table alike"
            )
    return replace(first, encoding=encodings.pop()) if encodings else first
