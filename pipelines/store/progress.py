"""Say how far the work is: the tasks of Spark's running jobs, and the pairs that scoring has done."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from py4j.protocol import Py4JError
from pyspark import SparkContext, StatusTracker

log = logging.getLogger(__name__)


class Tasks(NamedTuple):
    """How many tasks of Spark's running jobs are done, and which share of the last stage of each job."""

    done: int
    total: int
    share: float  # from 0 to 1; the last stage does the work that the stages before it prepare


def count_tasks(tracker: StatusTracker) -> Tasks | None:
    """Count the tasks of the running jobs; return None if no job runs, or if the JVM no longer answers."""
    try:
        return _count_tasks(tracker)
    except (Py4JError, OSError):  # the job itself reports that its JVM ended
        return None


def _count_tasks(tracker: StatusTracker) -> Tasks | None:
    jobs = [job for each in tracker.getActiveJobsIds() if (job := tracker.getJobInfo(each))]
    done = total = last_done = last_total = 0
    for job in jobs:
        stages = [stage for each in sorted(job.stageIds) if (stage := tracker.getStageInfo(each))]
        done += sum(stage.numCompletedTasks for stage in stages)
        total += sum(stage.numTasks for stage in stages)
        last_done += sum(stage.numCompletedTasks for stage in stages[-1:])
        last_total += sum(stage.numTasks for stage in stages[-1:])
    return Tasks(done, total, last_done / max(last_total, 1)) if total else None


@dataclass
class Progress:
    """The progress of scoring, whose commits have about the same number of pairs, as users are hashed.

    Its lines in the log carry it as `work`, so that who shows them can ask how far it is between two lines.
    """

    context: SparkContext
    what: str  # the name of the work
    commits: int
    pairs: int  # of a user and an item, over all commits
    forecast: float | None = None  # seconds that all commits were forecast to take
    started: float = field(default_factory=time.monotonic)  # seconds
    done: int = 0  # commits

    def report(self, done: int) -> str:
        """Report that `done` commits are finished, at which rate, and how long the others will take."""
        self.done = done
        text = f"{self.what}: {done} of {self.commits} commits, {self.describe()}"
        log.info(text, extra={"work": self})
        over = done == self.commits  # the next jobs do other work: None removes the description
        self.context.setJobDescription(None if over else text)  # type: ignore[arg-type]
        return text

    def describe(self, share: float = 0.0) -> str:
        """Say how many pairs are done, at which rate, and how many seconds are left.

        Args:
            share: the share of the running commit that is done, from 0 to 1.
        """
        spent = time.monotonic() - self.started
        finished = min(self.done + share, self.commits)
        scored = self.pairs * finished / max(self.commits, 1)
        text = f"about {scored:,.0f} of {self.pairs:,} pairs"
        if finished:
            left = spent / finished * (self.commits - finished)
            return text + f", {scored / max(spent, 1e-9) / 1e6:,.2f} M pairs/s, {left:,.0f} s left"
        if self.forecast is not None:
            text += f", {max(self.forecast - spent, 0):,.0f} s left by the forecast"
        return text
