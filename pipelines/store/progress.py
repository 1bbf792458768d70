"""Report the progress of a long job in the driver's log and in the descriptions of the Spark UI."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyspark import SparkContext

log = logging.getLogger(__name__)
EVERY_SECONDS = 10.0  # between two lines of the log


@contextmanager
def watch(context: SparkContext, what: str) -> Iterator[None]:
    """Log every few seconds how many tasks of the Spark jobs inside are done; `what` names the work."""
    over, tracker = threading.Event(), context.statusTracker()

    def report() -> None:
        while not over.wait(EVERY_SECONDS):
            stages = [found for each in tracker.getActiveStageIds() if (found := tracker.getStageInfo(each))]
            tasks, done = (
                sum(getattr(s, name) for s in stages) for name in ("numTasks", "numCompletedTasks")
            )
            log.info("%s: %d of %d tasks", what, done, tasks)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        over.set()
        reporter.join()


@dataclass
class Progress:
    """The progress of scoring, whose commits have about the same number of pairs, as users are hashed."""

    context: SparkContext
    what: str  # the name of the work
    commits: int
    pairs: int  # of a user and an item, over all commits
    started: float = field(default_factory=time.monotonic)  # seconds

    def report(self, done: int) -> str:
        """Report that `done` commits are finished, at which rate, and how long the others will take."""
        spent = time.monotonic() - self.started
        scored = self.pairs * done / max(self.commits, 1)
        text = f"{self.what}: {done} of {self.commits} commits, about {scored:,.0f} of {self.pairs:,} pairs"
        if done:
            left = spent / done * (self.commits - done)
            text += f", {scored / spent / 1e6:,.2f} M pairs/s, {left:,.0f} s left"
        log.info(text)
        over = done == self.commits  # the next jobs do other work: None removes the description
        self.context.setJobDescription(None if over else text)  # type: ignore[arg-type]
        return text
