"""The native backend: a compiled SIMD filter (kernel.cpp, simd.h), and canonical scores in C++.

`python -m lime_model.scoring.native` compiles it for this processor (set-up does; `--all` for
every processor, for images that run elsewhere). Without a compiler, or on a processor without
AVX2, `why_not` says so and the other backends do the work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from lime_model.arrays import F32, F64, Ints
from lime_model.scoring.backends.tiled import error_bound
from lime_model.scoring.canonical import UserRow, Weights
from lime_model.scoring.cells import Cells, Shape
from lime_model.scoring.topk import Backend, Query

HERE = files(__package__)  # a folder, or inside the zip that spark-submit ships
# No contraction: `lime_base` must round as canonical.py does. Intrinsics are not affected.
FLAGS = ("-O3", "-std=c++17", "-mtune=generic", "-ffp-contract=off", "-shared", "-fPIC")


class Isa(NamedTuple):
    """An instruction set: its struct in simd.h, compiler flags, and the `lime_level` it needs."""

    struct: str
    flags: tuple[str, ...]
    level: int


BASE = "avx2"  # every processor that runs any of them runs this one
ISAS = {  # the fastest first
    "avx512-bf16": Isa("Avx512Bf16", ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"), 4),
    "avx512-vnni": Isa("Avx512Vnni", ("-march=x86-64-v4", "-mavx512vnni"), 3),
    "avx512": Isa("Avx512", ("-march=x86-64-v4",), 2),
    BASE: Isa("Avx2", ("-march=x86-64-v3",), 1),
}
# The algorithm of avx512-vnni in AVX2 instructions: for tests on any machine, never chosen.
QUADS = {"avx2-quads": Isa("Avx2Quads", ("-march=x86-64-v3",), 1)}


def kernel_path(isa: str) -> Path:
    """Where the library of these sources belongs."""
    digest = hashlib.sha256((HERE / "kernel.cpp").read_bytes() + (HERE / "simd.h").read_bytes())
    digest.update(repr((FLAGS, ISAS)).encode())
    return _folder() / f"lime-{digest.hexdigest()[:12]}-{isa}.so"


@functools.cache
def _folder() -> Path:
    """Where sources and libraries lie as files: the package's own folder, or beside the zip it is in."""
    if "LIME_NATIVE" in os.environ:
        return Path(os.environ["LIME_NATIVE"])
    if isinstance(HERE, Path):
        return HERE
    folder = Path(__loader__.archive).parent / ".lime-native"  # type: ignore[name-defined]
    folder.mkdir(exist_ok=True)
    for file in HERE.iterdir():
        if not file.name.endswith(".py") and not (folder / file.name).exists():
            made = folder / f"{file.name}.{os.getpid()}"  # workers of a host may all be doing this
            made.write_bytes(file.read_bytes())
            made.replace(folder / file.name)
    return folder


def find_compiler() -> str | None:
    """The C++ compiler of this host: $CXX, g++ or clang++."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def build(*, everything: bool = False) -> str:
    """Compile what this processor runs, or for every processor; returns what happened, in one line."""
    problem = compile_for(BASE)
    if problem:
        return f"native scoring is not built, torch will score: {problem}"
    best = next((isa for isa, about in ISAS.items() if about.level <= processor_level()), BASE)
    problems = {isa: compile_for(isa) for isa in (ISAS if everything else [best])}
    current = kernel_path(BASE).name.removesuffix(f"{BASE}.so")
    for old in kernel_path(BASE).parent.glob("lime-*.so"):
        if not old.name.startswith(current):
            old.unlink()
            _checksum(old).unlink(missing_ok=True)
    said = "; ".join(f"not for {isa}: {why}" for isa, why in problems.items() if why)
    built = ", ".join(dict.fromkeys([*(isa for isa, why in problems.items() if not why), BASE]))
    return f"native scoring is built for {built}" + (f"; {said}" if said else "")


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _torn(path: Path) -> bool:
    """Whether a library is not what the compiler wrote."""
    said = _checksum(path)
    return not said.exists() or said.read_text() != hashlib.sha256(path.read_bytes()).hexdigest()


def compile_for(isa: str) -> str:
    """Compile for one instruction set unless that is done; returns the problem in one line, if any."""
    path, about, compiler = kernel_path(isa), (ISAS | QUADS)[isa], find_compiler()
    if path.exists() and not _torn(path):
        return ""
    if not compiler:
        return "no C++ compiler (Debian: apt-get install g++)"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            source = (HERE if isinstance(HERE, Path) else _folder()) / "kernel.cpp"
            flags = [*FLAGS, *about.flags, f"-DLIME_ISA={about.struct}", "-o", str(made), str(source)]
            done = subprocess.run([*shlex.split(compiler), *flags], capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"{compiler} ended with {done.returncode}"]
                return next((line for line in lines if "error" in line), lines[-1])
            _checksum(path).write_text(hashlib.sha256(made.read_bytes()).hexdigest())
            made.replace(path)
    except OSError as error:  # no such compiler, or a folder that can't be written
        return str(error)
    for answer in (processor_level, best_isa, why_not):
        answer.cache_clear()
    return ""


@functools.cache
def processor_level() -> int:
    """`lime_level` of this processor; 0 also where nothing is compiled."""
    path = kernel_path(BASE)
    return int(ctypes.CDLL(str(path)).lime_level()) if path.exists() else 0


@functools.cache
def best_isa() -> str:
    """The fastest instruction set that is compiled and runs here; AVX2 when none is, see `why_not`."""
    return next((isa for isa in ISAS if not why_not(isa)), BASE)


@functools.cache
def why_not(isa: str = BASE) -> str:
    """Why the native backend can't run here with an instruction set; empty when it can."""
    if problem := _unusable(kernel_path(BASE)):
        return problem
    try:
        level = processor_level()
    except OSError as error:
        return f"{kernel_path(BASE)} does not load: {error}"
    if level < (ISAS | QUADS)[isa].level:
        return f"this processor has no {isa}"
    return _unusable(kernel_path(isa))


def _unusable(library: Path) -> str:
    if not library.exists():
        return f"{library} is not there; run `python -m lime_model.scoring.native` with a C++ compiler"
    if _torn(library):  # loading it could kill the process
        return f"{library} is damaged; run `python -m lime_model.scoring.native` with a C++ compiler"
    return ""


@functools.cache
def _library(isa: str) -> Any:
    """The loaded library with its signatures.

    Raises:
        RuntimeError: see `why_not`.
    """
    if reason := why_not(isa):
        raise RuntimeError(f"backend 'native' was asked for: {reason}; or use backend: auto")
    library = ctypes.CDLL(str(kernel_path(isa)))
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
    library.lime_matmul.argtypes = [double, wide, wide, double, wide, double]
    library.lime_base.argtypes = [single, number, number, number, single, single, double, wide, whole, double]
    library.lime_cell_floats.restype, library.lime_cell_floats.argtypes = wide, [number] * 3
    return library


def kernel_words(shape: Shape) -> int:
    """fp32 words of a cell as the kernel counts them."""
    return int(_library(best_isa()).lime_cell_floats(*shape))


First = Literal["fp32", "int8", "bf16"]


@dataclass
class NativeBackend(Backend):
    """Filter by the compiled kernel.

    Args:
        first: the pass that every pair meets; fp32 takes what an int8 or bf16 pass leaves.
        isa: a key of `ISAS`; the fastest that runs here by default. bf16 is quick on avx512-bf16 alone.
    """

    first: First = "int8"
    isa: str = field(default_factory=best_isa)
    rescored: int = 0  # pairs that the first pass left to fp32, summed over calls

    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Rows that may reach the K best of each user: a superset of them."""
        library, stats = _library(self.isa), candidates.stats
        g = np.stack([user.factors.g for user in users])
        e = np.stack([user.factors.e for user in users])
        seen, seen_at = _flat([user.memory.rows for user in users], np.int64)
        seed, seed_at = _flat(seeds, np.float32)
        count = ctypes.c_uint64()
        result = library.lime_filter(
            candidates.words, len(candidates), *candidates.shape, len(users), g, e, weights.out,
            error_bound(weights, users, stats), stats.b_step, stats.b_max, stats.drift,
            seen, seen_at, seed, seed_at, k, get_args(First).index(self.first), ctypes.byref(count),
        )  # fmt: skip
        try:
            kept = [np.empty(library.lime_count(result, i), np.int64) for i in range(len(users))]
            for i, rows in enumerate(kept):
                library.lime_copy(result, i, rows)
        finally:
            library.lime_free(result)
        self.rescored += count.value
        return kept

    def fold(self, weights: Weights, links: F64, pools: F64, users: F64) -> list[UserRow]:
        """`Weights.fold_users`, to the bit."""
        return weights.fold_users(links, pools, users, self.multiply)

    def multiply(self, x: F64, w: F64) -> F64:
        """`ordered_matmul`, to the bit."""
        out = np.empty((len(x), w.shape[1]))
        _library(self.isa).lime_matmul(x, *x.shape, w, w.shape[1], out)
        return out

    def base(self, weights: Weights, user: Query, candidates: Cells, rows: Ints) -> F64:
        """Canonical z `[n]`, to the bit that of `Weights.base`."""
        z, (g, e) = np.empty(len(rows)), user.factors
        _library(self.isa).lime_base(
            candidates.words, *candidates.shape, g, e, weights.out, len(rows), np.ascontiguousarray(rows), z
        )
        return z


def _flat(parts: Sequence[NDArray[Any]], dtype: type) -> tuple[NDArray[Any], Ints]:
    """Parts side by side, and where each begins and ends."""
    ends = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype), ends
