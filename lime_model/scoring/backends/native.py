"""The native backend: a compiled SIMD filter, and canonical scores in C++.

Letters: U users, C candidates, n rows that are asked for, L links, F hidden units, E width of the dot, K list
length.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lime_model.arrays import F32, F64, Ints
from lime_model.scoring.backend import Backend
from lime_model.scoring.backends.tiled import error_bound
from lime_model.scoring.canonical import UserRow, Weights
from lime_model.scoring.cells import Cells, Shape
from lime_model.scoring.native import best_isa, kernel_path, why_not
from lime_model.scoring.queries import Query


@functools.cache
def _library(isa: str) -> Any:
    """Load the library of an instruction set and declare its signatures.

    Raises:
        RuntimeError: it does not run here; the message has the reason.
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
    """Return the fp32 words of a cell as the kernel counts them."""
    return int(_library(best_isa()).lime_cell_floats(*shape))


First = Literal["fp32", "int8", "bf16"]


@dataclass
class NativeBackend(Backend):
    """A filter that runs the compiled kernel.

    Args:
        first: the pass over all pairs; an fp32 pass checks what an int8 or bf16 pass keeps.
        isa: a key of `ISAS`, by default the fastest that runs here. bf16 is fast on avx512-bf16 only.
        rescored: pairs that the first pass left to the fp32 pass, summed over calls.
    """

    first: First = "int8"
    isa: str = field(default_factory=best_isa)
    rescored: int = 0

    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Return rows that may reach the K best of each user; see `Backend.keep`."""
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
        """Fold users to the bits of `Weights.fold_users`; see `Backend.fold`."""
        return weights.fold_users(links, pools, users, self.multiply)

    def multiply(self, x: F64, w: F64) -> F64:
        """Multiply `x [n, K] @ w [K, M]` to the bits of `canonical.ordered_matmul`."""
        out = np.empty((len(x), w.shape[1]))
        _library(self.isa).lime_matmul(x, *x.shape, w, w.shape[1], out)
        return out

    def base(self, weights: Weights, user: Query, candidates: Cells, rows: Ints) -> F64:
        """Compute z `[n]` to the bits of `Weights.base`; see `Backend.base`."""
        z, (g, e) = np.empty(len(rows)), user.factors
        _library(self.isa).lime_base(
            candidates.words, *candidates.shape, g, e, weights.out, len(rows), np.ascontiguousarray(rows), z
        )
        return z


def _flat(parts: Sequence[NDArray[Any]], dtype: type) -> tuple[NDArray[Any], Ints]:
    """Concatenate the parts, and return the offsets of each as well."""
    ends = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype), ends
