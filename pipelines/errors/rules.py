"""Define what a rule is: a pattern that the report of an error matches, the error to raise, and its remedy.

The rules are in `environment_rules.py` and `runtime_rules.py`; `stack_traces.TABLE` puts them in order.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lime_model.errors import LimeError


class SparkRefused(LimeError):
    """Spark or a storage refused something that an operator must change."""


class SparkLost(LimeError):
    """A host, a process or a connection was lost; another attempt may succeed."""

    remedy = "retry"


class DiskFull(LimeError):
    """The local disk of a host is full."""

    remedy = "retry"


class Rule(NamedTuple):
    """How to explain the exceptions that match a pattern."""

    error: type[LimeError]
    pattern: re.Pattern[str]  # is searched for in "Java class: [CONDITION] message"
    what: str  # what happened; `{host}` is replaced by the host
    remedy: str


def rule(error: type[LimeError], what: str, patterns: str, remedy: str) -> Rule:
    """Make a rule.

    Args:
        error: the class of the error to raise.
        what: what happened; `{host}` is replaced by the host.
        patterns: regular expressions, one on each line; the rule applies if any of them matches.
        remedy: what an operator should do about it.
    """
    lines = [line.strip() for line in patterns.strip().splitlines()]
    return Rule(error, re.compile("|".join(lines)), what, remedy)
