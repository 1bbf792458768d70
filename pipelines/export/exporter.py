"""Define what an exporter must do for a place that serves lists; each kind of place has its own file.

A new kind needs a file with an `Exporter`, a section of `export` in the settings, a line in `export_lists.py`
and tests.
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
    """A place refused the lists, or another export came first."""


class ExportDelayed(ExportFailed):
    """A place can't be reached now, or lost what was written; the same command may succeed later."""

    remedy = "retry"


class ExportFault(ExportFailed):
    """A place gave an answer that this project does not understand."""

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
        """The number of users."""
        return self.rows.count()


class Exporter(Protocol):
    """A place that serves lists.

    A night is exported by `find_newer`, `load`, `verify` and `flip`, in this order. Until `flip` sets the new
    night, readers get the one that was served before.
    """

    name: str  # the name of its section in the settings and in manifests

    def find_newer(self, lists: Lists) -> str | None:
        """Find a run of a later night that is served; an older night replaces it only on request."""
        ...

    def load(self, lists: Lists) -> Report:
        """Write the lists next to those that are served, and continue a load that was killed.

        Raises:
            ExportFailed: the place refuses them.
        """
        ...

    def verify(self, lists: Lists) -> None:
        """Count the lists that were written.

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
        """Remove the lists of a night that is no longer published, so that nobody reads them."""
        ...

    def forget(self, person: Person) -> int:
        """Remove a person from every version and night; return the number of removed lists or rows."""
        ...

    def count(self, person: Person) -> int:
        """Count a person's lists or rows in all versions and nights, in another way than `forget` does."""
        ...


def night_of(run_id: str) -> str:
    """Return the night of a run, which is the first part of its id."""
    return run_id.split(".")[0]
