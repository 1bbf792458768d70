"""What every place that lists are served from must be able to do; one file per kind of place.

A new kind is a file with an `Exporter`, a section of `export` in the settings, a line in `export.py` and its
tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from pyspark.sql import DataFrame

from lime_model.errors import LimeError
from pipelines.store.runs import Manifest
from pipelines.udfs.person import Person

Newer = Literal["refuse", "replace", "keep"]  # what becomes of a newer night that is served


class ExportFailed(LimeError):
    """A place refuses what was sent, or another export was faster."""


class ExportDelayed(ExportFailed):
    """A place is away for now, or lost what was written: the same command may succeed."""

    remedy = "retry"


class ExportFault(ExportFailed):
    """A place said something that nobody here knows."""

    remedy = "bug"


@dataclass(frozen=True)
class Lists:
    """The published lists of a night."""

    rows: DataFrame  # of `recommendations`
    night: str
    run_id: str
    holds: Callable[[str], bool]  # whether the warehouse has published the night of a run

    @cached_property
    def count(self) -> int:
        """How many users there are."""
        return self.rows.count()


class Exporter(Protocol):
    """A place that lists are served from.

    A night goes out by `find_newer`, `load`, `verify` and `flip`, in this order; readers see the night before
    until the last of them.
    """

    name: str  # of its section in the settings, and in manifests

    def find_newer(self, lists: Lists) -> str | None:
        """A run of a later night that is served and that an older one should not replace unasked."""
        ...

    def load(self, lists: Lists) -> Manifest:
        """Bring the lists there, beside what is served; goes on where a killed load ended.

        Raises:
            ExportFailed: the place refuses them.
        """
        ...

    def verify(self, lists: Lists) -> None:
        """Count what is there.

        Raises:
            ExportFailed: lists are missing.
        """
        ...

    def flip(self, lists: Lists) -> Manifest:
        """Serve the lists, and remove what is not served any more.

        Raises:
            ExportFailed: another export was faster.
        """
        ...

    def withdraw(self, night: str) -> None:
        """Remove what must not be read of a night that is not published any more."""
        ...

    def forget(self, person: Person) -> int:
        """Remove a person from every version and night; how many lists or rows of them there were."""
        ...

    def count(self, person: Person) -> int:
        """What it still holds of a person, of whichever version or night; reads otherwise than `forget`."""
        ...


def night_of(run_id: str) -> str:
    """The night of a run."""
    return run_id.split(".")[0]
