"""The end of a job: a line that says why it ended, and an exit code that says who can fix it.

| code | cause | a scheduler should |
|---|---|---|
| 0 | no error: the rows are committed | go on |
| 1 | a passing fault: another writer, a newer run, a lost host, a full disk | run the same command again |
| 2 | an error in the command line | not run it again |
| 3 | an error in settings, drops, tables or rights, or a failed audit or certificate | call a person |
| 70 | a bug of this project, or an error that it does not know | report it; another attempt does no harm |
| 130, 143 | SIGINT, SIGTERM | run it again at any time |

The line is the last thing that a job writes to stderr, and it starts with `error: `. It is printed once, as
plain text, for people and for a search of logs; the log lines before it are JSON (see `logs.py`). If there
are several faults, for example in the settings, each has its own line.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Final

from jobs.extras import find_missing_extra
from lime_model.errors import LimeError, Remedy
from pipelines.errors.explain import explain
from pipelines.errors.stack_traces import UnknownFault

EXIT_CODES: Final[dict[Remedy, int]] = {"retry": 1, "person": 3, "bug": 70}
INTERRUPTED = 130
REPORT = "please report it, with the command and the version of this project"


class Ending:
    """A context for the work of a job: it prints an error, and keeps its lines and the exit code."""

    def __init__(self, *, verbose: bool = False) -> None:
        self.verbose = verbose
        self.code = 0
        self.lines: list[str] = []  # what was printed about the error

    def __enter__(self) -> Ending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return True
        if isinstance(error, SystemExit):  # the reason has been printed already
            return False
        self.code, self.lines = end(error, verbose=self.verbose)
        for line in self.lines:
            print(line, file=sys.stderr, flush=True)
        return True


def end(error: BaseException, *, verbose: bool = False) -> tuple[int, list[str]]:
    """Print an error's stack trace if that helps; return the exit code and the lines that explain it."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, ["stopped by SIGINT; what is committed stays, a rerun does the rest"]
    known = find_missing_extra(error) or explain(error)
    if verbose or known is None:
        traceback.print_exception(error)
    if known is None:
        first = (str(error).splitlines() or [""])[0]
        lines = [f"error: this is a bug: {type(error).__name__}: {first}; {REPORT}"]
    elif isinstance(known, UnknownFault):
        lines = [f"error: this is not known to this project: {known}; {REPORT} and what --verbose prints"]
    else:  # each line is its own sentence
        lines = [f"error: {fault}" for fault in filter(None, map(str.strip, str(known).splitlines()))]
    return EXIT_CODES[known.remedy if isinstance(known, LimeError) else "bug"], lines
