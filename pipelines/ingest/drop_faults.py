"""The faults of drops, collected so that one message names all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lime_model.errors import LimeError

MOST_NAMED = 20  # faults that one message names one by one


class DropError(LimeError):
    """A drop cannot be loaded as it is; none of its good rows were committed."""


class Fault(NamedTuple):
    """One thing that keeps a file, a folder or a column from being read."""

    where: str  # the path of the file or folder
    what: str  # the fault and its remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class RowFault(NamedTuple):
    """The number of rows that are bad for one reason, with one of them as an example."""

    reason: str
    rows: int
    value: str | None  # of the example; so are the file and the location
    file: str | None
    location: str | None  # the line or row in the file

    def __str__(self) -> str:
        value = "" if self.value is None else f"such as {self.value!r}"
        place = ", ".join(part for part in (self.file, self.location) if part)
        shown = " ".join(part for part in (value, f"in {place}" if place else "") if part)
        return (
            f"{self.rows} × {self.reason}" + (f" ({shown})" if shown else "") + REMEDIES.get(self.reason, "")
        )


REMEDIES = {
    "unreadable_timestamp": "; say how times are written in ingest.timestamp.format",
    "malformed_row": "; check ingest.format, and ingest.csv or ingest.encoding",
    "future_timestamp": "; check ingest.source_timezone and ingest.folder_timezone",
    "too_late": "; check ingest.source_timezone and ingest.folder_timezone, or raise ingest.late_days",
}


def refuse(source: str, faults: Sequence[Fault], rows: Iterable[RowFault] = (), share: str = "") -> DropError:
    """Write the error that names all faults of the drops of a source.

    Args:
        source: `events`, `items` or `users`.
        faults: the faults of files, folders and columns.
        rows: the faults of single rows; they are named whether or not they alone would stop the load.
        share: why the bad rows alone stop the load; empty if they do not.
    """
    named = [str(fault) for fault in faults[:MOST_NAMED]]
    if len(faults) > MOST_NAMED:
        named.append(f"and {len(faults) - MOST_NAMED} more faults of files and folders")
    bad = [f"bad rows: {row}" for row in rows]
    kept = "only the bad rows were committed, to events_quarantine" if bad else "nothing was committed"
    end = f"{kept}; correct the drops or the settings, and load the drops again"
    lines = [*named, *([share] if share else []), *bad, end]
    return DropError("\n".join(f"{source}: {line}" for line in lines))
