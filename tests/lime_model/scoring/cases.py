"""Random scoring problems, all backends, and a brute-force answer; several test files share them."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import numpy as np
import torch

from lime_model.config import MEMORY_FEATURES
from lime_model.scoring.backend import Backend
from lime_model.scoring.backends.fused import TritonBackend
from lime_model.scoring.backends.native import First, NativeBackend
from lime_model.scoring.backends.reference import ReferenceBackend
from lime_model.scoring.backends.tiled import TiledBackend
from lime_model.scoring.canonical import Rows, UserRow, Weights, round_scores
from lime_model.scoring.cells import Cells
from lime_model.scoring.native import ISAS, why_not
from lime_model.scoring.queries import Memory, Query, TopK
from tests.host import HAS_NATIVE
from tests.lime_model.toys import toy_config, toy_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # on a CPU Triton is interpreted
BACKENDS: dict[str, Backend] = {
    "reference": ReferenceBackend(),
    "tiled": TiledBackend(),
    "tiled-tiny": TiledBackend(user_block=2, tile=3, stripe=5),
    "tiled-odd": TiledBackend(user_block=3, tile=7, stripe=7),
    "triton": TritonBackend(DEVICE, user_block=3, first=32, stripe=64, tile=16),
    "triton-odd": TritonBackend(DEVICE, user_block=2, first=7, stripe=9, tile=16),
    **(
        {
            "native": NativeBackend(),
            "native-quads": NativeBackend(isa="avx2-quads"),  # what VNNI computes, without VNNI
            "native-bf16": NativeBackend("bf16"),
            "native-bf16-emulated": NativeBackend("bf16", isa="avx2"),  # without the bf16 instruction
            "native-fp32": NativeBackend("fp32"),
        }
        if HAS_NATIVE
        else {}
    ),
}


def make_case(
    seed: int, users: int, candidates: int, links: int, hidden: int, dot: int, levels: int, scale: float
) -> tuple[Weights, list[Query], Rows]:
    """Return a random problem; few `levels` make many ties, and a large `scale` makes rounding matter."""
    rng = np.random.default_rng(seed)
    weights = Weights.of(toy_model(toy_config(links=links, hidden=hidden, dot=dot), seed))

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (np.round(rng.standard_normal(shape) * levels) / levels * scale).astype(np.float32)

    a = rng.integers(1, 5, (candidates, links)).astype(np.float64)
    bank = Rows(
        (a / a.sum(1, keepdims=True)).astype(np.float32) if candidates else a.astype(np.float32),
        draw(candidates, hidden), draw(candidates, dot), draw(candidates),
    )  # fmt: skip
    queries = []
    for _ in range(users):
        size = int(rng.integers(0, candidates // 2 + 1))
        rows = np.sort(rng.choice(candidates, size, replace=False)).astype(np.int64)
        memory = Memory(rows, draw(size, MEMORY_FEATURES), rng.random((2, size)) < 0.4)
        queries.append(Query(UserRow(draw(links, hidden), draw(dot)), memory))
    return weights, queries, bank


def cut(bank: Rows, cuts: list[int]) -> list[Cells]:
    """Return the candidates as shards that end at `cuts`; some shards may be empty."""
    ends = [*sorted(min(end, len(bank.beta)) for end in cuts), len(bank.beta)]
    return [Cells.pack(bank.take(np.arange(*pair))) for pair in pairwise([0, *ends])]


def brute_force(weights: Weights, user: Query, bank: Rows, k: int, policy: int = 0) -> TopK:
    """Score every candidate in turn and sort Python tuples."""
    features = dict(zip(user.memory.rows.tolist(), user.memory.features, strict=True))
    excluded = set(user.memory.rows[user.memory.excluded[policy]].tolist())
    scored = []
    for row in range(len(bank.beta)):
        if row not in excluded:
            one = bank.take(np.asarray([row]))
            z = weights.base(user.factors, one)
            if row in features:
                z = weights.remember(features[row][None], z)
            scored.append((-float(round_scores(z, one.beta)[0]), row, float(z[0])))
    best = sorted(scored)[:k]
    rows, scores, z = (
        np.asarray([row for _, row, _ in best], np.int64),
        [-s for s, _, _ in best],
        [z for *_, z in best],
    )
    return TopK(rows, np.asarray(scores, np.float32), np.asarray(z, np.float64))


def same(a: TopK, b: TopK) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def every_backend() -> list[Backend]:
    """Return all backends, the native one with every pass and instruction set that this processor runs."""
    runnable = [isa for isa in (*ISAS, "avx2-quads") if not why_not(isa)]
    compiled = [NativeBackend(first, isa) for isa in runnable for first in get_args(First)]
    return [*compiled, BACKENDS["tiled"], BACKENDS["tiled-tiny"], BACKENDS["triton"]]
