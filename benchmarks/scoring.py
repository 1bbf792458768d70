"""The scoring engine beside what one would use instead: `make bench-scoring`.

All on one core, the same users and candidates, interleaved, ratios within a round, median of
5 rounds. L = 32, F = 64, E = 32, K = 100, no items of users' histories unless said. Items are
500 clusters in the tower's space, pushed through a randomly initialised LIME model whose
head has N(0, 0.3²) weights; users are random link states; β is 0.3 · log1p of Zipf counts.

Letters: C candidates, L links, F hidden, E dot width, D width.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Row, interleave, median_ratio, publish, row
from lime_model.config import MEMORY_FEATURES, ModelConfig
from lime_model.model import LimeModel, UserState
from lime_model.scoring.canonical import Rows, Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.native import Native, why_not
from lime_model.scoring.tiled import Tiled
from lime_model.scoring.topk import Memory, Query, TopK, score_top_k

CONFIG = ModelConfig(links=32, width=64, hidden=64, dot=32)
K = 100
GEMM = 1536  # rows of the matrices that show the peak


class Problem(NamedTuple):
    """Users × candidates in every form that a contestant wants."""

    model: LimeModel
    weights: Weights
    items: Tensor  # T [C, D]
    rows: Rows
    cells: Cells
    states: list[UserState]
    queries: list[Query]


def make_problem(candidates: int, users: int) -> Problem:
    """The same for the same sizes."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = LimeModel(CONFIG, item_rows=2, item_sizes=[], user_sizes=[]).eval()
    with torch.no_grad():
        model.head_out.weight.normal_(std=0.3)
    weights = Weights.of(model)
    centres = rng.standard_normal((500, CONFIG.width))
    spread = 0.5 * rng.standard_normal((candidates, CONFIG.width))
    items = torch.tensor(centres[rng.integers(0, 500, candidates)] + spread, dtype=torch.float32)
    beta = (0.3 * np.log1p(rng.zipf(1.5, candidates).clip(0, 1000))).astype(np.float32)
    with torch.inference_mode():
        parts = [weights.fold_items(part.double().numpy()) for part in items.split(512)]
    a, b, d = (np.concatenate(side) for side in zip(*parts, strict=True))
    rows = Rows(a, b, d, beta)
    states, queries = [], []
    for _ in range(users):
        links = 0.7 * rng.standard_normal((CONFIG.links, CONFIG.width))
        pools = rng.standard_normal((CONFIG.pools, CONFIG.width))
        user = rng.standard_normal(CONFIG.user_width)
        sides = (torch.tensor(x[None], dtype=torch.float32) for x in (links, pools, user))
        states.append(UserState(*sides))
        queries.append(Query(weights.fold_user(links, pools, user), Memory.empty(MEMORY_FEATURES)))
    return Problem(model, weights, items, rows, Cells.pack(rows), states, queries)


def naive(problem: Problem, users: int) -> None:
    """The unfolded model per user, as a batch-prediction UDF would call it, 65,536 candidates at a time."""
    beta = torch.from_numpy(problem.rows.beta)
    with torch.inference_mode():
        for state in problem.states[:users]:
            scores = torch.cat([problem.model.base_scores(state, t)[0] for t in problem.items.split(65_536)])
            torch.topk(scores + beta, K)


def folded(problem: Problem, users: int) -> None:
    """The folded score in eager torch, all candidates of a user at once."""
    a, b, d, beta = (torch.from_numpy(x) for x in problem.rows)
    w = torch.tensor(problem.weights.out, dtype=torch.float32)
    with torch.inference_mode():
        for query in problem.queries[:users]:
            g, e = torch.from_numpy(query.factors.g), torch.from_numpy(query.factors.e)
            torch.topk(torch.relu(a @ g + b) @ w + d @ e + beta, K)


def faiss_flat(candidates: int, users: int) -> Callable[[], object] | None:
    """faiss IndexFlatIP over d = 64: one dot product a pair, no head; None when faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    index = faiss.IndexFlatIP(64)
    index.add(rng.standard_normal((candidates, 64)).astype(np.float32))
    queries = rng.standard_normal((users, 64)).astype(np.float32)
    return lambda: index.search(queries, K)


def gemm(size: int) -> Callable[[], object]:
    """The fp32 matrix product that the processor's peak is read from."""
    x = torch.randn(size, size)
    return lambda: torch.mm(x, x)


def with_history(problem: Problem, users: int, items: int) -> list[Query]:
    """The users with `items` excluded candidates each."""
    rng = np.random.default_rng(1)
    queries = []
    for query in problem.queries[:users]:
        rows = np.sort(rng.choice(len(problem.cells), items, replace=False)).astype(np.int64)
        memory = Memory(rows, np.zeros((items, MEMORY_FEATURES), np.float32), np.ones(items, np.bool_))
        queries.append(query._replace(memory=memory))
    return queries


def same_lists(first: list[TopK], second: list[TopK]) -> bool:
    """To the bit."""
    pairs = zip(first, second, strict=True)
    return all((a.rows == b.rows).all() and a.scores.tobytes() == b.scores.tobytes() for a, b in pairs)


def contestants(problem: Problem, users: int) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """What runs, and how many users each one serves in a round."""
    some = problem.queries[:users]
    weights, cells = problem.weights, problem.cells
    heavy = with_history(problem, users, 500)
    runs: dict[str, Callable[[], Any]] = {
        "naive per-user eager": lambda: naive(problem, 1),
        "folded eager torch": lambda: folded(problem, 2),
        "tiled torch": lambda: score_top_k(weights, problem.queries[:8], cells, K, Tiled()),
        "native fp32": lambda: score_top_k(weights, some, cells, K, Native(int8=False)),
        "exact native": lambda: score_top_k(weights, some, cells, K, Native()),
        "exact native, K 500, 500 excluded": lambda: score_top_k(weights, heavy, cells, 500, Native()),
        "gemm fp32": gemm(GEMM),
    }
    served = {"naive per-user eager": 1, "folded eager torch": 2, "tiled torch": 8}
    flat = faiss_flat(len(cells), users)
    if flat:
        runs["faiss flat, d 64"] = flat
    return runs, {name: served.get(name, users) for name in runs}


def measure(problem: Problem, users: int) -> list[Row]:
    """Rates of all contestants, and the ratios that are promised."""
    runs, served = contestants(problem, users)
    seconds = interleave(runs)
    each = {name: [s / served[name] for s in times] for name, times in seconds.items()}  # per user
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
        "tiled torch": (">= 5", ""),
        "faiss flat, d 64": (">= 0.65", ">= 1.0"),
    }
    for peer, (reach, aim) in promised.items():
        if peer in each:
            rows.append(row(f"exact native / {peer}", median_ratio(each[peer], ours), "x", reach, aim))
    peak = [2 * GEMM**3 / s for s in seconds["gemm fp32"]]
    kernel = [flops * candidates / s for s in each["native fp32"]]
    rows.append(row("native fp32 kernel / gemm peak", median_ratio(kernel, peak), "x", ">= 0.90"))
    heavy = median_ratio(each["exact native, K 500, 500 excluded"], ours)
    rows.append(row("K 500 with 500 exclusions / K 100", heavy, "x", "<= 1.25"))
    return rows


def main() -> int:
    """Measure, check that all exact contestants agree, publish."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--candidates", type=int, default=1_000_000)
    options.add_argument("--users", type=int, default=32)
    args = options.parse_args()
    if reason := why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    started = time.monotonic()
    torch.set_num_threads(1)
    problem = make_problem(args.candidates, args.users)
    rows = measure(problem, args.users)
    few, native = problem.queries[:4], Native()
    lists = score_top_k(problem.weights, few, problem.cells, K, native)
    agree = same_lists(lists, score_top_k(problem.weights, few, problem.cells, K, Tiled()))
    rows.append(row("exact native and tiled give the same lists to the bit", float(agree), "", ">= 1"))
    left = native.rescored / (len(few) * args.candidates)
    rows.append(row("pairs that the int8 pass leaves to fp32", left, "share"))
    about = (
        f"one core; C = {args.candidates:,}, {args.users} users, L = {CONFIG.links}, "
        f"F = {CONFIG.hidden}, E = {CONFIG.dot}, K = {K}"
    )
    publish("scoring", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
