"""The abilities of this machine: tests are skipped by these, never because a build has failed."""

from __future__ import annotations

import subprocess
import tempfile

import torch

from lime_model.scoring.native import find_compiler

# A machine with a compiler and AVX2 must have the kernel; the native tests fail there without it.
HAS_NATIVE = find_compiler() is not None and torch.backends.cpu.get_cpu_capability().startswith("AVX")
WHY = "no C++ compiler, or a processor without AVX2: there is no native kernel to test here"


def can_mount() -> bool:
    """Return whether this process may mount a disk, which root may not do in many containers."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True
        )
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return mounted.returncode == 0
