"""Compare the scoring engine with its alternatives: `make bench-scoring`.

All contestants score the same users and candidates, in turn. Ratios are taken within a round; the result is
the median of 5 rounds. They run on one core unless a row says two. The sizes are L = 32, F = 64, E = 32, K =
100, and no candidates are excluded unless a row says so. See problem.py for the users and candidates,
peers.py and histories.py for the contestants, spark_job.py for the Spark job, and cost.py for the plots of
cost against sizes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch

from benchmarks import cost, histories, peers, spark_job
from benchmarks.problem import CONFIG, K, Problem, make_problem, with_history
from benchmarks.report import Row, interleave, median_ratio, publish, row
from lime_model.scoring.backends.native import NativeBackend
from lime_model.scoring.backends.tiled import TiledBackend
from lime_model.scoring.native import best_isa, why_not
from lime_model.scoring.queries import TopK
from lime_model.scoring.topk import Engine

GEMM = 1536  # rows of the square matrices whose product shows the peak


def gemm(size: int, dtype: torch.dtype) -> Callable[[], object]:
    """Return a matrix product, whose speed is the processor's peak at a precision."""
    x = torch.randn(size, size).to(dtype)
    return lambda: torch.mm(x, x)


def same_lists(first: list[list[TopK]], second: list[list[TopK]]) -> bool:
    """Compare two sets of lists bit for bit."""
    pairs = zip(chain(*first), chain(*second), strict=True)
    return all((a.rows == b.rows).all() and a.scores.tobytes() == b.scores.tobytes() for a, b in pairs)


def contestants(problem: Problem, users: int) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Return the contestants, and how many users each one serves in a round."""
    some = problem.queries[:users]
    weights, cells = problem.weights, problem.cells
    heavy = with_history(problem, users, 500)
    runs: dict[str, Callable[[], Any]] = {
        "naive per-user eager": lambda: peers.naive(problem, 1),
        "folded eager torch": lambda: peers.folded(problem, 2),
        "torch.compile": peers.compiled(problem, 8),
        "tiled torch": lambda: Engine(weights, TiledBackend()).score_top_k(problem.queries[:8], [cells], K),
        "native fp32": lambda: Engine(weights, NativeBackend("fp32")).score_top_k(some, [cells], K),
        "exact native": lambda: Engine(weights, NativeBackend()).score_top_k(some, [cells], K),
        "exact native, K 500, 500 excluded": lambda: Engine(weights, NativeBackend()).score_top_k(
            heavy, [cells], 500
        ),
        "gemm fp32": gemm(GEMM, torch.float32),
        "faiss flat, d 64": peers.faiss_flat(len(cells), users),
        "implicit top-k, d 64": peers.implicit_topk(len(cells), users),
    }
    if not why_not("avx512-bf16"):
        runs["native bf16"] = lambda: Engine(weights, NativeBackend("bf16")).score_top_k(some, [cells], K)
        runs["gemm bf16"] = gemm(GEMM, torch.bfloat16)
    served = {"naive per-user eager": 1, "folded eager torch": 2, "torch.compile": 8, "tiled torch": 8}
    return runs, {name: served.get(name, users) for name in runs}


def measure(problem: Problem, users: int) -> list[Row]:
    """Measure the rates of all contestants, and the ratios that have targets."""
    runs, served = contestants(problem, users)
    seconds = interleave(runs)
    each = {name: [s / served[name] for s in times] for name, times in seconds.items()}  # seconds per user
    candidates = len(problem.cells)
    rows = [
        row(name, candidates / float(np.median(times)) / 1e6, "M pairs/s")
        for name, times in each.items()
        if not name.startswith("gemm")
    ]
    ours, flops = each["exact native"], 2 * (CONFIG.links * CONFIG.hidden + CONFIG.hidden + CONFIG.dot)
    promised = {
        "naive per-user eager": (">= 60", ""),
        "folded eager torch": (">= 17", ""),
        "torch.compile": ("", ""),
        "tiled torch": (">= 5", ""),
        "faiss flat, d 64": (">= 0.65", ">= 1.0"),
        "implicit top-k, d 64": ("", ""),
    }
    for peer, (reach, aim) in promised.items():
        ratio = median_ratio(each[peer], ours)
        rows.append(row(f"exact native / {peer}", ratio, "x", reach, aim, _instructions()))
    for precision in ("fp32", "bf16"):
        if f"gemm {precision}" in seconds:  # bf16 runs only where the processor supports it
            peak = [2 * GEMM**3 / s for s in seconds[f"gemm {precision}"]]
            kernel = [flops * candidates / s for s in each[f"native {precision}"]]
            rows.append(row(f"native {precision} / gemm peak", median_ratio(kernel, peak), "x", ">= 0.90"))
    heavy = median_ratio(each["exact native, K 500, 500 excluded"], ours)
    rows.append(row("K 500 with 500 exclusions / K 100", heavy, "x", "<= 1.25"))
    return [*rows, *agreement(problem)]


def _instructions() -> str:
    """Explain the limit of the exact pass on this processor."""
    if not why_not("avx512-vnni"):
        return (
            "bound by vpdpbusd, which the processor starts once a cycle; eight hidden units at a time, "
            "products accumulated by vpdpwssd and a dot in two chains were no faster"
        )
    return (
        f"on {best_isa()} two instructions do 32 multiply-adds, or 64 in 512 bits; "
        "VNNI does 64 in one. Other flags, unrolling and blocks were no faster"
    )


def agreement(problem: Problem) -> list[Row]:
    """Check that the exact contestants agree, and measure the share of pairs that int8 leaves to fp32."""
    few, native = problem.queries[:4], NativeBackend()
    lists = Engine(problem.weights, native).score_top_k(few, [problem.cells], K)
    tiled = Engine(problem.weights, TiledBackend()).score_top_k(few, [problem.cells], K)
    agree = same_lists(lists, tiled)
    left = native.rescored / (len(few) * len(problem.cells))
    return [
        row("exact native and tiled give the same lists to the bit", float(agree), "", ">= 1"),
        row("pairs that the int8 pass leaves to fp32", left, "share"),
    ]


def main() -> int:
    """Measure, check that all exact contestants agree, and publish the results."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--candidates", type=int, default=1_000_000)
    options.add_argument("--users", type=int, default=32)
    args = options.parse_args()
    if reason := why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    started = time.monotonic()
    torch.set_num_threads(1)
    os.environ.pop(
        "JDK_JAVA_OPTIONS", None
    )  # `make` tunes the JVM for short sessions; a peer needs its whole JIT compiler
    problem = make_problem(args.candidates, args.users)
    rows = measure(problem, args.users)
    for candidates in sorted({1024, min(32_768, args.candidates), args.candidates}):
        rows += histories.compare(candidates)
    rows += spark_job.compare_als(args.candidates, 2 * args.users)
    rows += spark_job.compare_job(problem)
    plots = cost.draw(args.candidates)
    about = (
        f"one core; C = {args.candidates:,}, {args.users} users, L = {CONFIG.links}, F = {CONFIG.hidden}, "
        f"E = {CONFIG.dot}, K = {K}; native on {best_isa()}; plots in {plots.name}"
    )
    publish("scoring", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
