"""One base for every error that ends a job with a sentence: bad input, a missing step, a lost host."""

from __future__ import annotations

from typing import ClassVar, Literal

Remedy = Literal["retry", "person", "bug"]


class LimeError(Exception):
    """Names the value, the limit and the remedy; jobs print it as one line.

    `remedy` says who can mend it, and the job's exit code says so to a scheduler: `retry`, when running the
    same command again can succeed; `person`, when somebody must change something first; `bug`, when the fault
    is in this project.
    """

    remedy: ClassVar[Remedy] = "person"


class TrainingError(LimeError, ValueError):
    """A log, labels or a recipe that nothing can be learned from."""


class LossError(LimeError, FloatingPointError):
    """A loss that is not finite: training stopped, the last checkpoint stands."""
