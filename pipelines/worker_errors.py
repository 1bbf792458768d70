"""An error of ours that a UDF raised reaches the driver as itself: one message instead of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PythonException

from lime_model.errors import LimeError

# The last line of a Python traceback: `package.module.Name: message`.
RAISED = re.compile(r"^(?:lime_model|pipelines)\.[\w.]*?(\w+): (.+)$", re.MULTILINE)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise what a worker raised when it is a `LimeError`; anything else is a bug and keeps its traceback."""
    try:
        yield
    except (PythonException, Py4JJavaError) as error:  # the second from iterators over rows
        found = RAISED.findall(str(error))
        kinds = {kind.__name__: kind for kind in _kinds(LimeError)}
        if not found or found[-1][0] not in kinds:
            raise
        name, message = found[-1]
        raise kinds[name](message) from error


def _kinds(kind: type[LimeError]) -> Iterator[type[LimeError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
