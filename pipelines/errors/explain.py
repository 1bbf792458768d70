"""Explain an error of Spark, a storage or the operating system in one sentence."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lime_model.errors import LimeError
from pipelines.errors.rules import DiskFull, SparkLost, SparkRefused
from pipelines.errors.stack_traces import UnknownFault, explain_text


@contextmanager
def explained() -> Iterator[None]:
    """Raise known errors of Spark in the block as a `LimeError`; an unknown one keeps its traceback."""
    try:
        yield
    except _spark_errors() as error:  # iterators over rows raise the second
        known = explain(error)
        if known is None or isinstance(known, UnknownFault):
            raise
        raise known from error


def _spark_errors() -> tuple[type[Exception], ...]:
    """Return what Spark raises; nothing in a process that has not loaded it, which may not be installed."""
    if "pyspark" not in sys.modules:
        return ()
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    return PySparkException, Py4JJavaError


def explain(error: BaseException) -> LimeError | None:
    """Explain an error of Spark, a storage or the operating system; return None for any other error."""
    if isinstance(error, LimeError):
        return error
    if isinstance(error, _spark_errors()):
        return explain_text(_text(error))
    if isinstance(error, MemoryError):
        return SparkLost("the Python of the driver is out of memory; run the job again on a larger host")
    return _explain_system(error) if isinstance(error, OSError) else None


def _text(error: BaseException) -> str:
    """Return the complete stack trace, or only the class of the error if the JVM no longer answers."""
    from py4j.protocol import Py4JError

    try:
        return getattr(error, "_stackTrace", None) or str(error)
    except (Py4JError, OSError):
        return f"{type(error).__module__}.{type(error).__name__}"


def _explain_system(error: OSError) -> LimeError | None:
    """Explain an error of the operating system on the driver; return None for an unknown one."""
    what, said = error.filename or "a file", error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no room on the disk of the driver for {what}: {said}; make room and run it again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SparkRefused(f"the driver may not use {what}: {said}; grant the right or name another place")
    if isinstance(error, ConnectionError | TimeoutError):
        return SparkLost(f"a connection of the driver was lost: {said}; run the job again")
    return None
