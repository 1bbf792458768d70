"""The compiled kernel (kernel.cpp, simd.h): how it is built, and whether it runs on this processor.

`python -m lime_model.scoring.native` compiles it for this processor, as the set-up does, and with `--all` for
every processor, for images that run elsewhere. Without a compiler, or on a processor without AVX2, `why_not`
gives the reason and another backend scores. The backend that calls it is `scoring/backends/native.py`.
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
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

HERE = files(__package__)  # a folder, or inside the zip that spark-submit ships
# No contraction: `lime_base` must round as canonical.py does. Intrinsics are not affected.
FLAGS = ("-O3", "-std=c++17", "-mtune=generic", "-ffp-contract=off", "-shared", "-fPIC")


class Isa(NamedTuple):
    """An instruction set: its struct in simd.h, compiler flags, and the `lime_level` it needs."""

    struct: str
    flags: tuple[str, ...]
    level: int


BASE = "avx2"  # every processor that runs another set of `ISAS` runs this one, too
ISAS = {  # the fastest first
    "avx512-bf16": Isa("Avx512Bf16", ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"), 4),
    "avx512-vnni": Isa("Avx512Vnni", ("-march=x86-64-v4", "-mavx512vnni"), 3),
    "avx512": Isa("Avx512", ("-march=x86-64-v4",), 2),
    BASE: Isa("Avx2", ("-march=x86-64-v3",), 1),
}
# The algorithm of avx512-vnni in AVX2 instructions; tests run it on any machine, and it is never chosen.
QUADS = {"avx2-quads": Isa("Avx2Quads", ("-march=x86-64-v3",), 1)}


def kernel_path(isa: str) -> Path:
    """Return where the library of these sources and an instruction set lies, compiled or not."""
    digest = hashlib.sha256((HERE / "kernel.cpp").read_bytes() + (HERE / "simd.h").read_bytes())
    digest.update(repr((FLAGS, ISAS)).encode())
    return _folder() / f"lime-{digest.hexdigest()[:12]}-{isa}.so"


@functools.cache
def _folder() -> Path:
    """Return where sources and libraries lie as files: the package's folder, or one next to its zip."""
    if "LIME_NATIVE" in os.environ:
        return Path(os.environ["LIME_NATIVE"])
    if isinstance(HERE, Path):
        return HERE
    folder = Path(__loader__.archive).parent / ".lime-native"  # type: ignore[name-defined]
    folder.mkdir(exist_ok=True)
    for file in HERE.iterdir():
        if not file.name.endswith(".py") and not (folder / file.name).exists():
            made = folder / f"{file.name}.{os.getpid()}"  # several workers of a host may do this at once
            made.write_bytes(file.read_bytes())
            made.replace(folder / file.name)
    return folder


def find_compiler() -> str | None:
    """Return the C++ compiler of this host: $CXX, g++ or clang++; None when there is none."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def build(*, everything: bool = False) -> str:
    """Compile for this processor, or for every processor; return what happened in one line."""
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
    """Return the file with the checksum of a library."""
    return path.with_suffix(".sha256")


def _torn(path: Path) -> bool:
    """Whether a library differs from what the compiler wrote."""
    said = _checksum(path)
    return not said.exists() or said.read_text() != hashlib.sha256(path.read_bytes()).hexdigest()


def compile_for(isa: str) -> str:
    """Compile for one instruction set unless that is done; return the problem in one line, or nothing."""
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
    except OSError as error:  # the compiler is missing, or the folder can't be written
        return str(error)
    for answer in (processor_level, best_isa, why_not):
        answer.cache_clear()
    return ""


@functools.cache
def processor_level() -> int:
    """Return `lime_level` of this processor; 0 also when nothing is compiled."""
    path = kernel_path(BASE)
    return int(ctypes.CDLL(str(path)).lime_level()) if path.exists() else 0


@functools.cache
def best_isa() -> str:
    """Return the fastest instruction set that is compiled and runs here; AVX2 when there is none."""
    return next((isa for isa in ISAS if not why_not(isa)), BASE)


@functools.cache
def why_not(isa: str = BASE) -> str:
    """Return why the kernel can't run here with an instruction set; empty when it can."""
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
    """Return why a library file can't be loaded; empty when it can."""
    if not library.exists():
        return f"{library} is missing; run `python -m lime_model.scoring.native` with a C++ compiler"
    if _torn(library):  # loading it could kill the process
        return f"{library} is damaged; run `python -m lime_model.scoring.native` with a C++ compiler"
    return ""
