"""The base of every error that ends a job with a sentence: bad input, a missing step, a lost host."""

from __future__ import annotations

from typing import ClassVar, Literal

Remedy = Literal["retry", "person", "bug"]


class LimeError(Exception):
    """An error whose message names the value, the limit and the remedy; jobs print it as one line.

    `remedy` says what has to happen, and the job's exit code passes it to a scheduler: `retry` when running
    the same command again can succeed, `person` when somebody must change something first, and `bug` when the
    fault is in this project.
    """

    remedy: ClassVar[Remedy] = "person"


class TrainingError(LimeError, ValueError):
    """A log, labels or a recipe from which nothing can be learned."""


class LossError(LimeError, FloatingPointError):
    """A loss that is not finite; training stopped, and the last checkpoint is unchanged."""
