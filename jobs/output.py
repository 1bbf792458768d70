"""What a job prints on stdout: JSON lines for its script, and what `lime` prints for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jobs.progress import Ticker, log_lines
from pipelines.settings.settings import Settings
from pipelines.store.manifests import Manifest

Result = Manifest | Mapping[str, Any]


def plain(result: Any) -> Any:
    """Return a result as values of JSON; manifests may be anywhere in it."""
    if isinstance(result, Manifest):
        return result.to_report()
    if isinstance(result, Mapping):
        return {str(key): plain(value) for key, value in result.items()}
    return [plain(each) for each in result] if isinstance(result, list | tuple) else result


class Output(Protocol):
    """How a job tells what it does and did; an error's own line is printed by `endings.py`."""

    ticker: Ticker  # shows what a step does while it works

    def start(self, settings: Settings) -> None:
        """Tell what will be done, after the settings were checked and before Spark starts."""

    def expect(self, expected: Mapping[str, float], why: str) -> None:
        """Tell, before the steps of a night, how long they will take.

        Args:
            expected: the seconds of each step, as far as they are known.
            why: where the numbers come from, as a sentence.
        """

    def result(self, job: str, result: Result, *, figures: bool = False) -> None:
        """Tell what a job or a step of a night has done.

        Args:
            job: the name of the job or step.
            result: its manifest, or other values.
            figures: whether a script also prints a line for each value.
        """

    def finish(self, app: str, seconds: float) -> None:
        """Tell that everything is done."""

    def fail(self, code: int, errors: Sequence[str]) -> None:
        """Tell that an error has ended the job; its lines are on stderr."""


class ScriptOutput:
    """The output of `jobs/NAME.py`: one JSON line for each result, for people and log scrapers."""

    def __init__(self) -> None:
        self.ticker = Ticker(log_lines())

    def start(self, settings: Settings) -> None:
        """Do nothing: a script prints only results."""

    def expect(self, expected: Mapping[str, float], why: str) -> None:
        """Do nothing: a script prints only results."""

    def result(self, job: str, result: Result, *, figures: bool = False) -> None:
        """Print the result as a JSON line.

        Args:
            job: the name of the job or step.
            result: its manifest, or other values.
            figures: whether to print a line for each value before it.
        """
        values = plain(result)
        for name, value in values.items() if figures else ():
            print(f"{name:20}{value:>20,}" if isinstance(value, int | float) else f"{name:20}{value!s:>20}")
        print(f"{job} {json.dumps(values, default=str)}", flush=True)

    def finish(self, app: str, seconds: float) -> None:
        """Print a line with the time that the job took."""
        print(f"{app}: done in {seconds:.1f} s", flush=True)

    def fail(self, code: int, errors: Sequence[str]) -> None:
        """Do nothing: the lines on stderr and the exit code say enough."""
