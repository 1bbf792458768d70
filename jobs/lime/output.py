"""What a command of `lime` prints: tables for people, or one JSON object on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from jobs.lime.console import open_console
from jobs.output import Result, plain
from jobs.progress import Ticker, people_lines
from pipelines.settings.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def print_json(values: Mapping[str, Any]) -> None:
    """Print the one JSON object of a command."""
    print(json.dumps(values, default=str, indent=None), flush=True)


def warn_of_slow_scoring(settings: Settings) -> None:
    """Print a warning on stderr if pairs will be scored without the native kernel and without a GPU."""
    # Checks the machine only: the driver chooses the backend, and it is this process.
    from pipelines.operate.machine_checks import explain_slow_scoring

    if reason := explain_slow_scoring(settings):
        print(f"warning: {reason}", file=sys.stderr, flush=True)


class CommandOutput:
    """What both outputs of a command have: its name, and a warning on stderr if scoring will be slow."""

    def __init__(self, command: str, *, scores: bool) -> None:
        self.command = command
        self.scores = scores
        self.ticker = Ticker(people_lines(open_console(stderr=True)))

    def start(self, settings: Settings) -> None:
        """Warn if scoring will be slow."""
        if self.scores:
            warn_of_slow_scoring(settings)

    def session(self, spark: SparkSession) -> None:
        """Do nothing: people find the application by the name of the job."""

    def expect(self, expected: Mapping[str, float], why: str) -> None:
        """Do nothing: only `lime night` tells how long its steps will take."""


class PeopleOutput(CommandOutput):
    """The output for people: a table of values for each result."""

    def __init__(self, command: str, *, scores: bool) -> None:
        super().__init__(command, scores=scores)
        self.console = open_console()

    def result(self, job: str, result: Result, *, figures: bool = False) -> None:
        """Print the values of a result as a table.

        Args:
            job: the name of the job.
            result: its manifest, or other values.
            figures: has no meaning here.
        """
        self.ticker.pause()
        values = plain(result)
        for name in ("seconds", "versions"):  # a job that keeps no manifest has neither
            if not values.get(name):
                values.pop(name, None)
        table = Table(title=job.replace("_", " "), title_justify="left", show_header=False)
        pairs = list(flatten(values))
        for name, value in pairs:
            if not _is_rows(value):
                table.add_row(name, show(value))
        self.console.print(table)
        for name, value in pairs:
            if _is_rows(value):
                self.console.print(rows_table(name, value))

    def finish(self, app: str, seconds: float) -> None:
        """Print how long the command took."""
        self.console.print(f"{self.command} is done in {seconds:,.1f} s")

    def fail(self, code: int, errors: Sequence[str]) -> None:
        """Do nothing: the lines on stderr and the exit code say enough."""


class JsonOutput(CommandOutput):
    """The output for programs: one JSON object at the end, also after an error."""

    def __init__(self, command: str, *, scores: bool) -> None:
        super().__init__(command, scores=scores)
        self.results: dict[str, Any] = {}

    def result(self, job: str, result: Result, *, figures: bool = False) -> None:
        """Keep the values of a result for the end.

        Args:
            job: the name of the job.
            result: its manifest, or other values.
            figures: has no meaning here.
        """
        self.results[job] = plain(result)

    def finish(self, app: str, seconds: float) -> None:
        """Print the object."""
        self._print(0, seconds=round(seconds, 1))

    def fail(self, code: int, errors: Sequence[str]) -> None:
        """Print the object, with the error."""
        self._print(code, errors=list(errors))

    def _print(self, code: int, **more: Any) -> None:
        print_json({"command": self.command, "exit_code": code, **more, "results": self.results})


def flatten(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings, each with the names that lead to it."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def show(value: Any) -> str:
    """Write a value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(map(show, value)) or "none"
    return "none" if value in (None, {}) else str(value)


def rows_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with a column for each key of the rows."""
    table = Table(title=title.replace("_", " "), title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(show(row[name]) if row.get(name) is not None else "" for name in names))
    return table


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
