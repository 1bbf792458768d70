"""What lies in the folders of drops: every file is read, named in an error, or ignored by a rule.

Ignored are files and folders whose name begins with `_` or `.` (`_SUCCESS`, `.crc`, `_temporary`), checksums
next to files (`.crc`, `.md5`, `.sha1`, `.sha256`, `.sha512`) and the folder marks of object stores
(`_$folder$`). Folders in a day's folder are looked into.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql import SparkSession

from lime_model.errors import LimeError
from pipelines.ingest.faults import Fault, refuse
from pipelines.settings import Settings
from pipelines.storage import hadoop_path, path_exists, reaching

CHECKSUMS = (".crc", ".md5", ".sha1", ".sha256", ".sha512", "_$folder$")
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
    for path, is_folder, _ in _children(spark, root, faults, recursive=False):
        name = path.rsplit("/", 1)[-1]
        if _is_ignored(name):
            continue
        found = DAY.fullmatch(name)
        if is_folder and found and _is_date(found[1]):
            days.append(found[1])
        else:
            kind = "folder" if is_folder else "file"
            faults.append(
                Fault(path, f"this {kind} is no day's drop; name folders ds=YYYY-MM-DD, or begin the name "
                "with _ to have it ignored")
            )  # fmt: skip
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
        for path, _, size in _children(spark, folder, faults, recursive=True):
            parts = path.rsplit(f"/ds={day}/", 1)[-1].split("/")
            if any(map(_is_ignored, parts)):
                ignored.append(path)
            else:
                files.append(DropFile(day, path, size))
    # Of a folder that can't be listed nobody knows which days are missing.
    listed = all(fault.where != source_folder(settings, source) for fault in faults)
    return Listing(files, ignored, faults, [day for day in days if listed and day not in known])


def _children(
    spark: SparkSession, uri: str, faults: list[Fault], *, recursive: bool
) -> list[tuple[str, bool, int]]:
    """Path, whether it is a folder, and bytes, of what is in a folder; nothing where there is no folder."""
    found: list[tuple[str, bool, int]] = []
    try:
        if not path_exists(spark, uri):
            return []
        path, fs = hadoop_path(spark, uri)
        with reaching(uri):
            each = fs.listFiles(path, True) if recursive else fs.listStatusIterator(path)
            while each.hasNext():
                status = each.next()
                path = str(status.getPath().toString())
                found.append((path, bool(status.isDirectory()), int(status.getLen())))
    except LimeError as error:
        if error.remedy != "person":
            raise
        faults.append(Fault(uri, str(error).removeprefix(f"{uri}: ")))
    return sorted(found)


def _is_ignored(name: str) -> bool:
    return name.startswith(("_", ".")) or name.endswith(CHECKSUMS)


def _is_date(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True
