"""What this machine could run: tests skip by that, never by whether the build came out well."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from lime_model.scoring.native import find_compiler

# A machine with a compiler and AVX2 must have the kernel: without it the native tests fail there.
HAS_NATIVE = find_compiler() is not None and torch.backends.cpu.get_cpu_capability().startswith("AVX")
WHY = "no C++ compiler, or a processor without AVX2: there is no native kernel to test here"


def can_run_as(user: str) -> bool:
    """Whether this process may become another user who can run this Python and read this project."""
    if os.geteuid() != 0:
        return False
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); import jobs.command"
    try:
        done = subprocess.run([sys.executable, "-c", code], user=user, capture_output=True)
    except PermissionError:
        return False
    return done.returncode == 0


def can_mount() -> bool:
    """Whether this process may mount a disk of its own: root in many containers may not."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True
        )
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return mounted.returncode == 0
