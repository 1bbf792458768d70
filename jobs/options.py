"""What the definition of a command consists of: its options, and the words of its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Option:
    """An option of a command; the option of a script in `jobs/` and that of `lime` are made from it."""

    flag: str  # such as `--run-key`
    help: str
    check: Callable[[str], Any] = str  # reads a value, or raises argparse's error
    default: Any = None
    required: bool = False
    # A value, a switch without a value, a value that may be repeated, several values after one flag, or (in
    # commands of `lime` alone) a value without a flag.
    kind: Literal["value", "switch", "repeated", "several", "argument"] = "value"
    name: str = ""  # the attribute that holds the value, if it is not the one that the flag gives
    metavar: str | None = None
    choices: tuple[str, ...] | None = None

    @property
    def dest(self) -> str:
        """The attribute of the parsed command line that holds the value."""
        return self.name or self.flag.removeprefix("--").replace("-", "_").lower()


CONFIG = Option("--config", "settings file, such as conf/local.yaml", required=True)
VERBOSE = Option(
    "--verbose",
    "also print the whole stack trace of an error, for a bug report",
    kind="switch",
    default=False,
)

# Only scripts have it: a scheduler reads the file instead of searching the output of spark-submit for lines.
RESULT = Option("--result", "file that also receives each result as a line of JSON, for a scheduler")


def _no_problem(_: argparse.Namespace) -> str | None:
    return None


@dataclass(frozen=True)
class Definition:
    """What a command is called, what it does, and which options it has besides those of every command."""

    name: str  # the file of a job in `jobs/`; for a command of `lime` alone, its name
    summary: str
    examples: tuple[str, ...]  # the options of commands that can be run as they are
    options: tuple[Option, ...] = ()
    details: str = ""
    # Returns what is wrong with options that do not fit together.
    problem: Callable[[argparse.Namespace], str | None] = _no_problem
    scores: bool = False  # whether it scores pairs, for which the native kernel is the fastest

    def describe(self) -> str:
        """Return the description that `jobs/NAME.py --help` prints."""
        start = f"    python jobs/{self.name}.py --config conf/local.yaml "
        examples = "\n".join(start + example for example in self.examples)
        return "\n\n".join(filter(None, (self.summary, examples, self.details)))
