"""Log lines on stderr that name run, night and job: JSON, or plain text if stderr is a terminal."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.stdlib import ProcessorFormatter
from structlog.types import Processor


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the time, as a live line puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self.stream = sys.stderr
        super().emit(record)


def start_logs(*, quiet: bool = False, **fields: str) -> None:
    """Send the lines of all loggers to stderr; every line of this thread carries `fields`.

    Args:
        quiet: whether to leave out lines below warnings, because something else shows the progress.
        fields: fields of every line.
    """
    people = sys.stderr.isatty()
    common: list[Processor] = [
        merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    how: list[Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=not os.environ.get("NO_COLOR"), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    handler = _Stderr()
    handler.setLevel(logging.WARNING if quiet else logging.NOTSET)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=common, processors=[ProcessorFormatter.remove_processors_meta, *how]
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    bind_contextvars(**fields)
    sys.excepthook = lambda *error: logging.getLogger("jobs").critical("ended by a bug", exc_info=error)
