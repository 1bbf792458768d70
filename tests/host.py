"""What this machine could run: tests skip by that, never by whether the build came out well."""

from __future__ import annotations

import torch

from lime_model.scoring.native import find_compiler

# A machine with a compiler and AVX2 must have the kernel: without it the native tests fail there.
HAS_NATIVE = find_compiler() is not None and torch.backends.cpu.get_cpu_capability().startswith("AVX")
WHY = "no C++ compiler, or a processor without AVX2: there is no native kernel to test here"
