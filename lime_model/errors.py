"""One base for everything an operator can mend: bad input, bad settings, a missing step, a stale run."""

from __future__ import annotations


class LimeError(Exception):
    """Names the value, the limit and the remedy; jobs print it as one line and exit 1."""


class TrainingError(LimeError, ValueError):
    """A log, labels or a recipe that nothing can be learned from."""


class LossError(LimeError, FloatingPointError):
    """A loss that is not finite: training stopped, the last checkpoint stands."""
