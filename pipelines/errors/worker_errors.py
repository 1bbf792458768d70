"""Recover an error of this project that a UDF raised, so that the driver reports it without a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lime_model.errors import LimeError

OURS = re.compile(r"(?:lime_model|pipelines)\.[\w.]*?(\w+): (.+)")


def find_error(text: str) -> LimeError | None:
    """Return the `LimeError` that ended the last Python traceback in `text`, or None if another error did."""
    _, _, last = text.rpartition("Traceback (most recent call last):")
    ends = (line for line in last.splitlines() if line and not line[0].isspace())
    found = OURS.fullmatch(next(ends, ""))
    kinds = {kind.__name__: kind for kind in _kinds(LimeError)}
    return kinds[found[1]](found[2]) if found and found[1] in kinds else None


def _kinds(kind: type[LimeError]) -> Iterator[type[LimeError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
