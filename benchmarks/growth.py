"""Measure how the time to read a history grows with its length; part of `make bench-nights`.

LIME-XOR reads N events into its links, and HSTU reads them into the keys and values of its three blocks. Both
run in eager torch on one core, in the same rounds. The exponent is the slope of the log of the median seconds
over log N.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.peers import Hstu
from benchmarks.problem import CONFIG, make_model
from benchmarks.report import RESULTS, Row, interleave, row
from lime_model.model.lime import Features, History

LENGTHS = tuple(2**power for power in range(8, 15))
TILE = 512  # rows of HSTU's attention that are computed together
ROUNDS = 5
LOOKS = {"LIME-XOR": "o-", "HSTU": "s--"}


def compare_growth() -> list[Row]:
    """Measure the exponents of both models, and draw a plot."""
    torch.set_num_threads(1)
    medians: dict[str, list[float]] = {name: [] for name in LOOKS}
    for n in LENGTHS:
        for name, seconds in interleave(_readers(n), ROUNDS).items():
            medians[name].append(statistics.median(seconds))
    _draw(medians)
    torch.set_num_threads(2)
    reach = {"LIME-XOR": "<= 1.1"}
    return [
        row(
            f"{name}: reading a history grows with N to the power of",
            float(np.polyfit(np.log(LENGTHS), np.log(found), 1)[0]),
            f"{1e3 * found[0]:.1f} ms at {LENGTHS[0]}, {1e3 * found[-1]:,.0f} ms at {LENGTHS[-1]:,}",
            reach.get(name, ""),
        )
        for name, found in medians.items()
    ]


def _readers(n: int) -> dict[str, Callable[[], object]]:
    """Return the readers of one user with `n` events."""
    torch.manual_seed(0)
    hstu = Hstu(CONFIG.width).eval()
    xor = make_model(replace(CONFIG, variant="lime-xor", max_events=n))
    events, days = torch.randn(n, CONFIG.width), torch.arange(n, dtype=torch.float32)[None] / 8
    history = History(events[None], days, torch.ones(1, n, dtype=torch.bool))
    nobody = Features(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0))
    return {
        "LIME-XOR": torch.inference_mode()(lambda: xor.read(history, nobody)),
        "HSTU": torch.inference_mode()(lambda: hstu.read(events, TILE)),
    }


def _draw(medians: dict[str, list[float]]) -> None:
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, found in medians.items():
        axis.loglog(LENGTHS, found, LOOKS[name], label=name, base=2)
    axis.set_xlabel("events of a user")
    axis.set_ylabel("seconds to read them, one core")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(RESULTS / "nights-growth.svg")
