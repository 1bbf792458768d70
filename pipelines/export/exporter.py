"""What an exporter must do for a place that lists are served from; there is one file for each kind of place.

A new kind is a file with an `Exporter`, a section of `export` in the settings, a line in `export_lists.py`
and its tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from pyspark.sql import DataFrame

from lime_model.errors import LimeError
from pipelines.udfs.person import Person

Report = dict[str, object]  # what an exporter adds to the manifest
Newer = Literal["refuse", "replace", "keep"]  # what to do with a newer night that is served


class ExportFailed(LimeError):
    """A place refuses what was sent, or another export came first."""


class ExportDelayed(ExportFailed):
    """A place can't be reached for now, or lost what was written: the same command may succeed."""

    remedy = "retry"


class ExportFault(ExportFailed):
    """A place gave an answer that this project does not know."""

    remedy = "bug"


@dataclass(frozen=True)
class Lists:
    """The published lists of a night."""

    rows: DataFrame  # rows of `recommendations`
    night: str
    run_id: str
    holds: Callable[[str], bool]  # whether the warehouse has published the night of a run

    @cached_property
    def count(self) -> int:
        """Number of users."""
        return self.rows.count()


class Exporter(Protocol):
    """A place that lists are served from.

    A night goes out by `find_newer`, `load`, `verify` and `flip`, in this order; readers see the night before
    until the last of them.
    """

    name: str  # the name of its section in the settings and in manifests

    def find_newer(self, lists: Lists) -> str | None:
        """Find a run of a later night that is served and that an older one must not replace unasked."""
        ...

    def load(self, lists: Lists) -> Report:
        """Bring the lists there, next to those that are served; go on where a killed load ended.

        Raises:
            ExportFailed: the place refuses them.
        """
        ...

    def verify(self, lists: Lists) -> None:
        """Count the lists that are there.

        Raises:
            ExportFailed: lists are missing.
        """
        ...

    def flip(self, lists: Lists) -> Report:
        """Serve the lists, and remove those that are no longer served.

        Raises:
            ExportFailed: another export came first.
        """
        ...

    def withdraw(self, night: str) -> None:
        """Remove lists that must not be read, of a night that is no longer published."""
        ...

    def forget(self, person: Person) -> int:
        """Remove a person from every version and night; returns how many lists or rows there were."""
        ...

    def count(self, person: Person) -> int:
        """Count a person's lists or rows in any version and night; reads by another path than `forget`."""
        ...


def night_of(run_id: str) -> str:
    """The night of a run, which its id begins with."""
    return run_id.split(".")[0]
