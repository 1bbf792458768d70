"""What a job shows while a step of it works: a live line on a terminal, or a plain line every few seconds.

A thread looks once a second. What it says comes from Spark's status tracker, from the last line that
`pipelines` or `lime_model` logged, and, while pairs are scored, from the scoring's own account of them.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:  # commands that need neither Spark nor a live line must not load them
    from pyspark import SparkContext
    from rich.console import Console
    from rich.live import Live

    from pipelines.store.progress import Progress, Tasks

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at what a step does
LOG_SECONDS = 10.0  # between two lines of a log
PIPE_SECONDS = 15.0  # between two lines in a file or a pipe
LOGGERS = ("pipelines", "lime_model")  # whose lines say what a step does


class Sink(Protocol):
    """Where progress is shown."""

    keeps_log: bool  # whether the lines of the log at level INFO are also written as they are

    def show(self, line: str) -> None:
        """Show what the step does now: its name, its time and what it does."""

    def note(self, line: str) -> None:
        """Show a line that is worth keeping, such as the plan of a night."""

    def clear(self) -> None:
        """Remove what is shown and would be in the way of other output."""


class Lines:
    """Plain lines, at most one every so many seconds.

    Args:
        write: writes a line.
        every: the least number of seconds between two lines.
        keeps_log: see `Sink`.
    """

    def __init__(self, write: Callable[[str], None], every: float, *, keeps_log: bool) -> None:
        self.write, self.every, self.keeps_log = write, every, keeps_log
        self.last = time.monotonic()

    def show(self, line: str) -> None:
        """Write the line if the last one is old enough."""
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.write(line)

    def note(self, line: str) -> None:
        """Write the line, unless it is in the log anyway."""
        if not self.keeps_log:
            self.last = time.monotonic()
            self.write(line)

    def clear(self) -> None:
        """Note that something else is written now, so that silence begins anew."""
        self.last = time.monotonic()


class LiveLine:
    """One line at the bottom of a terminal that is drawn again and again, until it is cleared."""

    keeps_log = False

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None

    def show(self, line: str) -> None:
        """Draw the line anew."""
        from rich.live import Live
        from rich.spinner import Spinner

        drawn = Spinner("dots", line)
        if self.live is None:
            # Lines of the log go above the live line; stdout may be another file than this terminal.
            self.live = Live(drawn, console=self.console, transient=True, redirect_stdout=False)
            self.live.start()
        self.live.update(drawn)

    def note(self, line: str) -> None:
        """Print the line above the live line."""
        self.console.print(line)

    def clear(self) -> None:
        """Remove the live line."""
        if self.live is not None:
            self.live.stop()
            self.live = None


def log_lines() -> Lines:
    """Return the sink of a script: lines in its log."""
    return Lines(log.info, LOG_SECONDS, keeps_log=True)


def people_lines(console: Console) -> Sink:
    """Return the sink of `lime`: a live line if the console is a terminal, and plain lines otherwise."""
    if console.is_terminal:
        return LiveLine(console)
    return Lines(lambda line: print(line, file=sys.stderr, flush=True), PIPE_SECONDS, keeps_log=False)


class Ticker(logging.Handler):
    """Shows what a job does, from entering this context until it is left.

    Args:
        sink: where it is shown.
    """

    def __init__(self, sink: Sink) -> None:
        super().__init__(logging.INFO)
        self.sink = sink
        self.count: Callable[[], Tasks | None] = lambda: None
        self.shown = threading.Lock()  # held while the sink is used
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.begin("starting Spark")

    def begin(self, step: str, expected: float | None = None) -> None:
        """Begin a step.

        Args:
            step: its name, as people read it.
            expected: the seconds that it will take, if they are known.
        """
        self.step, self.expected, self.started = step, expected, time.monotonic()
        self.said, self.work = "", cast("Progress | None", None)
        self.context = contextvars.copy_context()  # the fields of the log's lines

    def watch(self, spark: SparkContext) -> None:
        """Count the tasks of this session from now on."""
        from pipelines.store.progress import count_tasks

        tracker = spark.statusTracker()
        self.count = lambda: count_tasks(tracker)

    def pause(self) -> None:
        """Make room for other output; the next look shows progress again."""
        with self.shown:
            self.sink.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Remember what the step says about itself; keep the plan of a night."""
        if record.levelno > logging.INFO:
            return
        self.said, self.work = record.getMessage(), getattr(record, "work", None)
        if getattr(record, "plan", False):
            with self.shown:
                self.sink.note(self.said)

    def describe(self) -> str:
        """Say what the step does now."""
        spent = time.monotonic() - self.started
        tasks = self.count()
        doing = _describe(self.said, self.work, tasks)
        return f"{self.step}, {spent:,.0f} s" + (f": {doing}" if doing else "") + self._left(spent)

    def _left(self, spent: float) -> str:
        if self.work or self.expected is None or " left" in self.said:  # it says so by itself
            return ""
        return f"; about {self.expected - spent:,.0f} s left" if spent < self.expected else ""

    def _run(self) -> None:
        while not self.over.wait(LOOK_SECONDS):
            line = self.describe()
            with self.shown:
                if not self.over.is_set():
                    self.context.run(self.sink.show, line)

    def __enter__(self) -> Ticker:
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)
        self.pause()


def _describe(said: str, work: Progress | None, tasks: Tasks | None) -> str:
    """Say what is done: the pairs, the last line of the log, and Spark's tasks; empty if nothing is known."""
    counted = f"{tasks.done} of {tasks.total} tasks" if tasks else ""
    if work is not None and work.done < work.commits:
        said = work.describe(tasks.share if tasks else 0.0)
    return ", ".join(filter(None, (said, counted)))
