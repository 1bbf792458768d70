"""What lies in the folders of drops: every file is read, named in an error, or ignored by a rule.

Ignored are files and folders whose name begins with `_` or `.` (`_SUCCESS`, `.crc`, `_temporary`), checksums
next to files (`.crc`, `.md5`, `.sha1`, `.sha256`, `.sha512`) and the folder marks of object stores
(`_$folder$`). Folders in a day's folder are looked into.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql import SparkSession

from lime_model.errors import LimeError
from pipelines.ingest.drop_faults import Fault, refuse
from pipelines.settings.settings import Settings
from pipelines.store.storage import hadoop_path, path_exists, reaching

CHECKSUMS = (".crc", ".md5", ".sha1", ".sha256", ".sha512", "_$folder$")
COPYING = "._COPYING_"  # the end of a name while HDFS writes the file; Spark leaves it out
DAY = re.compile(r"ds=(\d{4}-\d{2}-\d{2})")


class DropFile(NamedTuple):
    """A file that holds rows of a day's drop."""

    day: str
    uri: str
    size: int


class Listing(NamedTuple):
    """Files to read by day, what was ignored, what is wrong, and the days that have no folder."""

    files: list[DropFile]
    ignored: list[str]
    faults: list[Fault]
    absent: list[str]

    @property
    def days(self) -> list[str]:
        """Days that have a file: what these files say replaces what the day's drop said before."""
        return sorted({file.day for file in self.files})


def source_folder(settings: Settings, source: str) -> str:
    """Where the drops of a source are."""
    return f"{settings.drops.rstrip('/')}/{source}"


def drop_path(settings: Settings, source: str, day: str) -> str:
    """Folder of one day of one source."""
    return f"{source_folder(settings, source)}/ds={day}"


def drop_days(spark: SparkSession, settings: Settings, source: str) -> list[str]:
    """Days that have a folder, ascending.

    Raises:
        DropError: a folder or file there is named as no day.
    """
    days, faults = list_days(spark, settings, source)
    if faults:
        raise refuse(source, faults)
    return days


def list_days(spark: SparkSession, settings: Settings, source: str) -> tuple[list[str], list[Fault]]:
    """Days that have a folder, ascending, and what is named as no day."""
    root = source_folder(settings, source)
    days: list[str] = []
    faults: list[Fault] = []
    for entry in _children(spark, root, faults, recursive=False):
        if _is_ignored(entry.below):
            continue
        found = DAY.fullmatch(entry.below)
        if entry.is_folder and found and _is_date(found[1]):
            days.append(found[1])
        else:
            kind = "folder" if entry.is_folder else "file"
            what = f"this {kind} is no day's drop; name folders ds=YYYY-MM-DD, or begin the name with _ to "
            faults.append(Fault(entry.path, f"{what}have it ignored"))
    return sorted(days), faults


def list_drops(spark: SparkSession, settings: Settings, source: str, days: Sequence[str]) -> Listing:
    """The files of `days` under `raw/<source>`."""
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
            if any(map(_is_ignored, entry.below.split("/"))):
                ignored.append(entry.path)
            elif entry.path.endswith(COPYING):
                faults.append(Fault(entry.path, "this file is being written; load its day when it is whole"))
            else:
                files.append(DropFile(day, entry.path, entry.size))
    # Of a folder that can't be listed nobody knows which days are missing.
    listed = all(fault.where != source_folder(settings, source) for fault in faults)
    return Listing(files, ignored, faults, [day for day in days if listed and day not in known])


class _Entry(NamedTuple):
    """A file or folder below a folder: its path, the part of it below the folder, and its bytes."""

    path: str
    below: str
    is_folder: bool
    size: int


def _children(spark: SparkSession, uri: str, faults: list[Fault], *, recursive: bool) -> list[_Entry]:
    """What is in a folder, in folders below it too if `recursive`; nothing where there is no folder."""
    found: list[_Entry] = []
    try:
        if not path_exists(spark, uri):
            return []
        path, fs = hadoop_path(spark, uri)
        with reaching(uri):
            root = f"{fs.makeQualified(path).toString()}/"
            each = fs.listFiles(path, True) if recursive else fs.listStatusIterator(path)
            while each.hasNext():
                status = each.next()
                name = str(status.getPath().toString())
                found.append(_Entry(name, name.removeprefix(root), status.isDirectory(), status.getLen()))
    except LimeError as error:
        if error.remedy != "person":
            raise
        faults.append(Fault(uri, str(error).removeprefix(f"{uri}: ")))
    return sorted(found)


def _find_unlisted(uri: str) -> list[Fault]:
    """Files on a local disk that Hadoop's client leaves out without a word: dead links, names of no text."""
    faults: list[Fault] = []
    folder = uri.removeprefix("file://").removeprefix("file:")
    if not folder.startswith("/"):
        return faults
    for root, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(root, name)
            shown = path.decode("utf-8", "backslashreplace")
            if not os.path.exists(path):
                faults.append(Fault(shown, "this link leads to no file; mend it or remove it"))
            elif name.decode("utf-8", "replace").encode() != name:
                faults.append(Fault(shown, "the name of this file is not UTF-8; rename it"))
    return faults


def _is_ignored(name: str) -> bool:
    return name.startswith(("_", ".")) or name.endswith(CHECKSUMS)


def _is_date(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True
