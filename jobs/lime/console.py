"""Consoles of Rich: they write colours only to a terminal, and none at all if NO_COLOR is set."""

from __future__ import annotations

import os
import sys

from rich.console import Console

WIDTH_OF_FILES = 120  # columns of what goes into a file or a pipe


def open_console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH_OF_FILES
    colours = None if os.environ.get("NO_COLOR") else "auto"
    return Console(stderr=stderr, width=width, color_system=colours, highlight=False, markup=False)  # type: ignore[arg-type]
