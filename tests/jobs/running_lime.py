"""Run the command `lime` in this process or as a process of its own."""

from __future__ import annotations

import os
import pty
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


def on_a_terminal(*options: str, **env: str) -> str:
    """Run `lime` on a terminal; return what it wrote there."""
    return on_a_terminal_python("-m", "jobs.lime", *options, **env)


def on_a_terminal_python(*options: str, **env: str) -> str:
    """Run Python on a terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **env}
    job = subprocess.Popen(
        [sys.executable, *options], stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # Linux reports the end of a terminal as an error
        assert job.wait(timeout=60) == 0
    os.close(ours)
    return said.decode()
