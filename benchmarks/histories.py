"""Compare HSTU and LIME on one user's history and many candidates, both in eager torch on one core.

HSTU scores each candidate against the events. LIME reads the events into links once, and scores the folded
form.

Letters: N events, C candidates, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks.peers import Hstu
from benchmarks.problem import CONFIG, K, make_model
from benchmarks.report import Row, interleave, median_ratio, row
from lime_model.model.fold import ItemFactors, fold_items, fold_users, folded_scores
from lime_model.model.lime import Features, History, LimeModel

XOR = "three blocks read all events; the last one no longer updates them; LIME-MHA reads them once"
REACH = {256: ">= 10", 1024: ">= 45", 8192: ">= 200"}


def compare(candidates: int, lengths: Sequence[int] = (256, 1024, 8192)) -> list[Row]:
    """Compare the seconds of HSTU and LIME for one user, at each history length."""
    rows = []
    for n in lengths:
        # At a million candidates HSTU takes minutes for a user: the first round is the warm-up, and the
        # median ignores it.
        seconds = interleave(contestants(candidates, n), warm=candidates <= 32_768)
        reach = REACH.get(n, "") if candidates == 32_768 else ""
        for name in ("LIME-MHA", "LIME-XOR"):
            ratio = median_ratio(seconds["HSTU"], seconds[name])
            what = f"torch HSTU / torch {name}, N = {n:,}, C = {candidates:,}"
            why = XOR if name == "LIME-XOR" else ""
            rows.append(row(what, ratio, "x", reach, why=why))
    return rows


def contestants(candidates: int, n: int) -> dict[str, Callable[[], object]]:
    """Return the contestants for one user with `n` events; each reads, scores and takes the top K."""
    torch.manual_seed(0)
    hstu = Hstu().eval()
    mha = make_model(replace(CONFIG, variant="lime-mha"))
    xor = make_model(replace(CONFIG, variant="lime-xor", max_events=n))
    events, items = torch.randn(n, CONFIG.width), torch.randn(candidates, CONFIG.width)
    days = torch.arange(n, dtype=torch.float64)[None] / 8
    with torch.inference_mode():
        banks = [
            fold_items(model, items) for model in (mha, xor)
        ]  # shared by all users, so this cost is not measured
    history = History(events[None], days.float(), torch.ones(1, n, dtype=torch.bool))
    return {
        "HSTU": lambda: _hstu(hstu, events, items),
        "LIME-MHA": lambda: _lime(mha, history, banks[0]),
        "LIME-XOR": lambda: _lime(xor, history, banks[1]),
    }


def _hstu(model: Hstu, events: torch.Tensor, items: torch.Tensor) -> None:
    with torch.inference_mode():
        torch.topk(model(events, items), K)


def _lime(model: LimeModel, history: History, bank: ItemFactors, tile: int = 512) -> None:
    with torch.inference_mode():
        user = fold_users(
            model, model.read(history, Features(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0)))
        )
        parts = zip(*(side.split(tile) for side in bank), strict=True)
        scores = [folded_scores(model, user, ItemFactors(*part))[0] for part in parts]
        torch.topk(torch.cat(scores), K)
