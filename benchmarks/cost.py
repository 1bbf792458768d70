"""Plot the cost of a user against C, L·F, K, exclusions and N, as one figure of curves.

The curves of candidates, sizes, list lengths and exclusions use the exact native backend. The curves of
histories compare both LIMEs with HSTU in eager torch. Each point is the median of 5 rounds; a round measures
all points of the curve in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from benchmarks import histories
from benchmarks.problem import CONFIG, K, Problem, make_problem, with_history
from benchmarks.report import RESULTS, interleave
from lime_model.scoring.backends.native import NativeBackend
from lime_model.scoring.queries import Query
from lime_model.scoring.topk import Engine

USERS = 8
Curve = dict[float, float]


def draw(candidates: int) -> Path:
    """Measure all curves and write `scoring-cost.svg`; return its path."""
    problem = make_problem(candidates // 5, USERS)
    lists = {k: (k, problem.queries) for k in (1, 10, 100, 1000)}
    curves = {
        "candidates C": {"exact native": against_candidates(candidates)},
        "multiply-adds L x F": {"exact native": against_sizes(candidates // 10)},
        "list length K": {"exact native": _of(problem, lists)},
        "exclusions per user": {"exact native": against_exclusions(problem)},
        "events N": against_events(4096),
    }
    figure, axes = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3.4), constrained_layout=True)
    for axis, (label, lines) in zip(axes, curves.items(), strict=True):
        for name, curve in lines.items():
            axis.plot(list(curve), [1e3 * s for s in curve.values()], "o-", label=name)
        axis.set(xlabel=label, ylabel="ms per user")
        if len(lines) > 1:
            axis.set(xscale="log", yscale="log")
            axis.legend()
        else:
            axis.set_ylim(bottom=0)
    path = RESULTS / "scoring-cost.svg"
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def against_candidates(most: int) -> Curve:
    """Measure from a sixteenth of the candidates up to all candidates."""
    runs = {}
    for c in (most // 16, most // 4, most // 2, most):
        runs[c] = _scoring(make_problem(c, USERS), K)
    return _seconds(runs)


def against_sizes(candidates: int) -> Curve:
    """Measure L x F from 8 x 32 to 64 x 128."""
    runs = {}
    for links, hidden in ((8, 32), (16, 64), (32, 64), (32, 128), (64, 128)):
        config = replace(CONFIG, links=links, hidden=hidden)
        runs[links * hidden] = _scoring(make_problem(candidates, USERS, config), K)
    return _seconds(runs)


def against_exclusions(problem: Problem) -> Curve:
    """Measure lists from which up to 5,000 items of each user are excluded."""
    return _of(problem, {n: (K, with_history(problem, USERS, n)) for n in (0, 100, 500, 2000, 5000)})


def against_events(candidates: int) -> dict[str, Curve]:
    """Measure reading one user's history and scoring the candidates, by LIME and by HSTU."""
    curves: dict[str, Curve] = {}
    for n in (64, 256, 1024, 4096):
        for name, seconds in interleave(histories.contestants(candidates, n)).items():
            curves.setdefault(name, {})[n] = float(np.median(seconds))
    return curves


def _of(problem: Problem, points: Mapping[int, tuple[int, list[Query]]]) -> Curve:
    return _seconds({x: _scoring(problem, k, queries) for x, (k, queries) in points.items()})


def _scoring(problem: Problem, k: int, queries: list[Query] | None = None) -> Callable[[], object]:
    mine = problem.queries if queries is None else queries
    return lambda: Engine(problem.weights, NativeBackend()).score_top_k(mine, [problem.cells], k)


def _seconds(runs: Mapping[int, Callable[[], object]]) -> Curve:
    """Measure the seconds per user at each point."""
    seconds = interleave({str(x): run for x, run in runs.items()})
    return {float(x): float(np.median(times)) / USERS for x, times in seconds.items()}
