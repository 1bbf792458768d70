"""List the files of drops: every file is read, named in an error, or ignored by a rule.

The rule ignores files and folders whose name begins with `_` or `.` (`_SUCCESS`, `.crc`, `_temporary`),
checksums next to files (`.crc`, `.md5`, `.sha1`, `.sha256`, `.sha512`) and the folder marks of object stores
(`_$folder$`). Files in folders below a day's folder belong to the day.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pyspark.sql import SparkSession

from lime_model.errors import LimeError
from pipelines.ingest.drop_faults import Fault, refuse
from pipelines.ingest.drop_names import find_day, is_ignored
from pipelines.settings.settings import Settings
from pipelines.store.storage import hadoop_path, path_exists, reaching

COPYING = "._COPYING_"  # the end of a name while HDFS writes the file; Spark skips such a file


class DropFile(NamedTuple):
    """A file with rows of a day's drop."""

    day: str
    uri: str
    size: int  # bytes


class Listing(NamedTuple):
    """What the folders of some days hold."""

    files: list[DropFile]  # the files to read
    ignored: list[str]  # paths that a rule ignores
    faults: list[Fault]
    absent: list[str]  # days without a folder

    @property
    def days(self) -> list[str]:
        """The days that have a file; its rows replace those that the day's drop had before."""
        return sorted({file.day for file in self.files})


class DropDays(NamedTuple):
    """The days that have a folder, ascending, and the faults of other names next to them."""

    days: list[str]
    faults: list[Fault]


def source_folder(settings: Settings, source: str) -> str:
    """Return the folder of the drops of a source."""
    return f"{settings.drops.rstrip('/')}/{source}"


def drop_path(settings: Settings, source: str, day: str) -> str:
    """Return the folder of a day of a source.

    Args:
        settings: where the drops are.
        source: `events`, `items` or `users`.
        day: the day as `YYYY-MM-DD`.
    """
    return f"{source_folder(settings, source)}/ds={day}"


def drop_days(spark: SparkSession, settings: Settings, source: str) -> list[str]:
    """List the days that have a folder, ascending.

    Args:
        spark: the session whose storage client lists the folder.
        settings: where the drops are.
        source: `events`, `items` or `users`.

    Raises:
        DropError: the name of a folder or file is not that of a day.
    """
    found = list_days(spark, settings, source)
    if found.faults:
        raise refuse(source, found.faults)
    return found.days


def list_days(spark: SparkSession, settings: Settings, source: str) -> DropDays:
    """List the days that have a folder, and the folders and files whose name is not that of a day.

    Args:
        spark: the session whose storage client lists the folder.
        settings: where the drops are.
        source: `events`, `items` or `users`.
    """
    root = source_folder(settings, source)
    days: list[str] = []
    faults: list[Fault] = []
    for entry in _children(spark, root, faults, recursive=False):
        if is_ignored(entry.below):
            continue
        day = find_day(entry.below)
        if entry.is_folder and day:
            days.append(day)
        else:
            kind = "folder" if entry.is_folder else "file"
            what = (
                f"this {kind} is not a day's drop; name folders ds=YYYY-MM-DD, or begin the name with _ to "
            )
            faults.append(Fault(entry.path, f"{what}have it ignored"))
    return DropDays(sorted(days), faults)


def list_drops(spark: SparkSession, settings: Settings, source: str, days: Sequence[str]) -> Listing:
    """List the files of some days of a source.

    Args:
        spark: the session whose storage client lists the folders.
        settings: where the drops are.
        source: `events`, `items` or `users`.
        days: the days as `YYYY-MM-DD`, ascending.
    """
    there, faults = list_days(spark, settings, source)
    known = set(there)
    files: list[DropFile] = []
    ignored: list[str] = []
    for day in days:
        if day not in known:
            continue
        folder = drop_path(settings, source, day)
        faults += _find_unlisted(folder)
        for entry in _children(spark, folder, faults, recursive=True):
            if any(map(is_ignored, entry.below.split("/"))):
                ignored.append(entry.path)
            elif entry.path.endswith(COPYING):
                faults.append(Fault(entry.path, "this file is being written; load its day when it is whole"))
            else:
                files.append(DropFile(day, entry.path, entry.size))
    # When the source's folder can't be listed, it is unknown which days are missing.
    listed = all(fault.where != source_folder(settings, source) for fault in faults)
    return Listing(files, ignored, faults, [day for day in days if listed and day not in known])


class _Entry(NamedTuple):
    """A file or folder below a folder."""

    path: str
    below: str  # the part of the path below the folder
    is_folder: bool
    size: int  # bytes


def _children(spark: SparkSession, uri: str, faults: list[Fault], *, recursive: bool) -> list[_Entry]:
    """List what is in a folder and, if `recursive`, below it; a missing folder has nothing in it."""
    found: list[_Entry] = []
    try:
        if not path_exists(spark, uri):
            return []
        path, fs = hadoop_path(spark, uri)
        with reaching(uri):
            root = f"{fs.makeQualified(path).toString()}/"
            for status in _walk(fs, path) if recursive else _each(fs.listStatusIterator(path)):
                name = str(status.getPath().toString())
                found.append(_Entry(name, name.removeprefix(root), status.isDirectory(), status.getLen()))
    except LimeError as error:
        if error.remedy != "person":
            raise
        faults.append(Fault(uri, str(error).removeprefix(f"{uri}: ")))
    return sorted(found)


def _each(listed: Any) -> Iterator[Any]:
    while listed.hasNext():
        yield listed.next()


def _walk(fs: Any, folder: Any) -> Iterator[Any]:
    """Yield the files below a folder.

    Object stores list all of them at once. On a local disk, `listFiles` starts a process for each file, which
    asks for its rights; listing folder by folder does not.
    """
    if fs.getScheme() != "file":
        yield from _each(fs.listFiles(folder, True))
        return
    for status in _each(fs.listStatusIterator(folder)):
        if status.isDirectory():
            yield from _walk(fs, status.getPath())
        else:
            yield status


def _find_unlisted(uri: str) -> list[Fault]:
    """Find files on a local disk that Hadoop's client skips silently: dead links, names not in UTF-8."""
    faults: list[Fault] = []
    folder = uri.removeprefix("file://").removeprefix("file:")
    if not folder.startswith("/"):
        return faults
    for root, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(root, name)
            shown = path.decode("utf-8", "backslashreplace")
            if not os.path.exists(path):
                faults.append(Fault(shown, "this link leads to no file; correct it or remove it"))
            elif name.decode("utf-8", "replace").encode() != name:
                faults.append(Fault(shown, "the name of this file is not UTF-8; rename it"))
    return faults
