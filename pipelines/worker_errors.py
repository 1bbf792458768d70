"""An error of ours that a UDF raised reaches the driver as itself: one message instead of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from lime_model.errors import LimeError

NO_ROOM = "No space left on device"
HOST = re.compile(r"Lost task \S+ in stage \S+ \(TID \d+\) \(([^)]*)\)")  # "10.0.0.7 executor 3"
OURS = re.compile(r"(?:lime_model|pipelines)\.[\w.]*?(\w+): (.+)")


class DiskFull(LimeError):
    """Spark found no room on a host's local disk."""


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise what a worker raised when it is a `LimeError`; anything else is a bug and keeps its traceback."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:  # the second from iterators over rows
        ours = find_error(str(error)) or find_full_disk(str(error))
        if ours is None:
            raise
        raise ours from error


def find_error(text: str) -> LimeError | None:
    """The `LimeError` that ended the last Python traceback in `text`, or None when something else did."""
    _, _, last = text.rpartition("Traceback (most recent call last):")
    ends = (line for line in last.splitlines() if line and not line[0].isspace())
    found = OURS.fullmatch(next(ends, ""))
    kinds = {kind.__name__: kind for kind in _kinds(LimeError)}
    return kinds[found[1]](found[2]) if found and found[1] in kinds else None


def find_full_disk(text: str) -> DiskFull | None:
    """What Spark says when a host has no room for its blocks, in one line, or None."""
    if NO_ROOM not in text:
        return None
    found = HOST.search(text)
    host = found[1] if found else "a host"
    return DiskFull(
        f"no room on the disk of {host}: make room under its Spark local directory, or "
        "give executors another spark.local.dir; then run the job again, it takes up what is missing"
    )


def _kinds(kind: type[LimeError]) -> Iterator[type[LimeError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
