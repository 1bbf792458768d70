"""Which names of folders are days of a drop, and which names of files and folders a rule ignores."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

CHECKSUMS = (".crc", ".md5", ".sha1", ".sha256", ".sha512", "_$folder$")
DAY = re.compile(r"ds=(\d{4}-\d{2}-\d{2})")


def find_day(name: str) -> str | None:
    """Return the day that the name of a folder says, or None if it is not the name of a day's drop."""
    found = DAY.fullmatch(name)
    if found is None:
        return None
    try:
        dt.date.fromisoformat(found[1])
    except ValueError:
        return None
    return found[1]


def is_hidden(name: str) -> bool:
    """Whether a name begins with `_` or `.`, as those of `_SUCCESS` and `_temporary` do."""
    return name.startswith(("_", "."))


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, a checksum, or the folder mark of an object store."""
    return is_hidden(name) or name.endswith(CHECKSUMS)


def local_days(folder: Path) -> list[str]:
    """List the days of the drops in a folder, ascending; a folder that is not there has none."""
    return sorted(filter(None, (find_day(path.name) for path in folder.iterdir()))) if folder.is_dir() else []
