"""Run the command `lime` in this process or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.lime.app import app
from tests.conftest import ROOT

ESCAPE = "\x1b"  # the start of every colour


def lime(*options: str) -> int:
    """Run `lime` in this process; return the exit code."""
    with pytest.raises(SystemExit) as left:
        app(list(options), prog_name="lime")
    return int(left.value.code or 0)


def start(*options: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `lime` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.lime", *options], capture_output=True, text=True, check=False, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip
