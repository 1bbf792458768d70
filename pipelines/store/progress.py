"""How far a long job is: in the driver's log, and in the Spark UI as the description of its jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyspark import SparkContext

log = logging.getLogger(__name__)
EVERY_SECONDS = 10.0


@contextmanager
def watch(context: SparkContext, what: str) -> Iterator[None]:
    """Say every few seconds how many tasks of the Spark jobs inside are done."""
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
    """Commits that share `pairs` about evenly; users are hashed to them."""

    context: SparkContext
    what: str
    commits: int
    pairs: int
    started: float = field(default_factory=time.monotonic)

    def report(self, done: int) -> str:
        """Say that `done` commits are there, what rate that is, and how long the others will take."""
        spent = time.monotonic() - self.started
        scored = self.pairs * done / max(self.commits, 1)
        text = f"{self.what}: {done} of {self.commits} commits, about {scored:,.0f} of {self.pairs:,} pairs"
        if done:
            left = spent / done * (self.commits - done)
            text += f", {scored / spent / 1e6:,.2f} M pairs/s, {left:,.0f} s left"
        log.info(text)
        over = done == self.commits  # the jobs that follow are others: None takes the description off
        self.context.setJobDescription(None if over else text)  # type: ignore[arg-type]
        return text
