"""The native backend: a compiled AVX2 filter (kernel.cpp), and canonical scores in C++.

`python -m lime_model.scoring.native` compiles it (set-up does). Without a compiler, or on
another processor, `why_not` says so and the other backends do the work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lime_model.scoring.canonical import F32, F64, Weights
from lime_model.scoring.cells import Cells, Ints, Shape
from lime_model.scoring.tiled import error_bound
from lime_model.scoring.topk import Backend, Query

SOURCE = Path(__file__).with_name("kernel.cpp")
# No contraction: `lime_base` must round as canonical.py does. Intrinsics are not affected.
FLAGS = ("-O3", "-std=c++17", "-march=x86-64-v3", "-mtune=generic", "-ffp-contract=off", "-shared", "-fPIC")


def library_path() -> Path:
    """Where the library of this source belongs."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:12]
    return Path(os.environ.get("LIME_NATIVE", SOURCE.parent)) / f"lime-{digest}.so"


def find_compiler() -> str | None:
    """The C++ compiler of this host: $CXX, g++ or clang++."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def build() -> str:
    """Compile when there is a compiler; returns what happened, in one line."""
    path = library_path()
    if path.exists():
        return f"native scoring is built ({path.name})"
    compiler = find_compiler()
    if not compiler:
        return "native scoring is not built: no C++ compiler (Debian: apt-get install g++); torch will score"
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        done = subprocess.run([compiler, *FLAGS, "-o", made, SOURCE], capture_output=True, text=True)
        if done.returncode:
            return f"native scoring is not built, torch will score: {done.stderr.strip()[-300:]}"
        made.replace(path)
    for old in set(path.parent.glob("lime-*.so")) - {path}:
        old.unlink()
    return f"native scoring is built ({path.name})"


@functools.cache
def why_not() -> str:
    """Why the native backend can't run here; empty when it can."""
    path = library_path()
    if not path.exists():
        return f"{path} is not there; run `python -m lime_model.scoring.native` with a C++ compiler"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path} does not load: {error}"
    return "" if library.lime_supported() else "this processor has no AVX2 and FMA"


@functools.cache
def _library() -> Any:
    """The loaded library with its signatures.

    Raises:
        RuntimeError: see `why_not`.
    """
    if reason := why_not():
        raise RuntimeError(f"backend 'native' was asked for: {reason}; or use backend: auto")
    library = ctypes.CDLL(str(library_path()))
    pointer, number, wide = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    single, double, whole = (
        np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS") for dtype in (np.float32, np.float64, np.int64)
    )
    library.lime_filter.restype = pointer
    library.lime_filter.argtypes = [
        single, wide, number, number, number, number, single, single, double, double, double, double,
        ctypes.c_double, whole, whole, single, whole, number, number, pointer,
    ]  # fmt: skip
    library.lime_count.restype, library.lime_count.argtypes = wide, [pointer, number]
    library.lime_copy.argtypes = [pointer, number, whole]
    library.lime_free.argtypes = [pointer]
    library.lime_base.argtypes = [single, number, number, number, single, single, double, wide, whole, double]
    library.lime_cell_floats.restype, library.lime_cell_floats.argtypes = wide, [number] * 3
    return library


def kernel_words(shape: Shape) -> int:
    """fp32 words of a cell as the kernel counts them."""
    return int(_library().lime_cell_floats(*shape))


@dataclass
class Native(Backend):
    """Filter by the compiled kernel.

    Args:
        int8: the exact cascade (int8, then fp32 for what it leaves); False: fp32 for every pair.
    """

    int8: bool = True
    rescored: int = 0  # pairs that the int8 pass left to fp32, summed over calls

    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Rows that may reach the K best of each user: a superset of them."""
        library, stats = _library(), candidates.stats
        g = np.stack([user.factors.g for user in users])
        e = np.stack([user.factors.e for user in users])
        seen, seen_at = _flat([user.memory.rows for user in users], np.int64)
        seed, seed_at = _flat(seeds, np.float32)
        count = ctypes.c_uint64()
        result = library.lime_filter(
            candidates.words, len(candidates), *candidates.shape, len(users), g, e, weights.out,
            error_bound(weights, users, stats), stats.b_step, stats.b_max, stats.drift,
            seen, seen_at, seed, seed_at, k, int(self.int8), ctypes.byref(count),
        )  # fmt: skip
        try:
            kept = [np.empty(library.lime_count(result, i), np.int64) for i in range(len(users))]
            for i, rows in enumerate(kept):
                library.lime_copy(result, i, rows)
        finally:
            library.lime_free(result)
        self.rescored += count.value
        return kept

    def base(self, weights: Weights, user: Query, candidates: Cells, rows: Ints) -> F64:
        """Canonical z `[n]`, to the bit that of `Weights.base`."""
        z, (g, e) = np.empty(len(rows)), user.factors
        _library().lime_base(
            candidates.words, *candidates.shape, g, e, weights.out, len(rows), np.ascontiguousarray(rows), z
        )
        return z


def _flat(parts: Sequence[NDArray[Any]], dtype: type) -> tuple[NDArray[Any], Ints]:
    """Parts side by side, and where each begins and ends."""
    ends = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype), ends
