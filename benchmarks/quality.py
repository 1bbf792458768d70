"""How good the lists are: LIME beside recommenders from outside: part of `make bench-quality`.

The Complete Journey split at a day: everything before it to learn from, the four weeks from it on as
the truth; households with 20 purchases before it and one after. Recall and NDCG at 100, macro over
households, recall divides by all relevant items; over all items, and over items new to the household
among lists without its own. LIME's recipe and the constants of the others were chosen on the four weeks
before (`--tune` tries the others' grids there and publishes quality-tuning.json). `±` is the standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch

from benchmarks import recommenders
from benchmarks.journey import Journey, load
from benchmarks.lists import Quality, Scorer, lime_scorer, make_lists, measure
from benchmarks.report import ROOT, Row, publish, row
from lime_model.config import TrainConfig
from lime_model.metrics import bootstrap_interval, mean_and_error
from pipelines.settings import load_settings
from pipelines.train import fit

TEST, VALIDATION = "2017-12-04", "2017-11-06"


class Outside(NamedTuple):
    """A recommender from outside: how to make it, its constants, and those that `--tune` tries."""

    make: Callable[..., Scorer]
    chosen: tuple[float, ...]
    grid: tuple[tuple[float, ...], ...]


OUTSIDE = {
    "popularity": Outside(recommenders.popularity, (7,), ((7,), (14,), (28,))),
    "personal frequency, then popularity": Outside(
        recommenders.personal_frequency, (14,), ((7,), (14,), (28,))
    ),
    "item-kNN": Outside(
        recommenders.item_neighbours, (200, 10.0), tuple(product((50, 200, 800), (0.0, 10.0, 100.0)))
    ),
    "Spark ALS, implicit": Outside(
        recommenders.spark_als, (64, 1.0, 0.1), tuple(product((64,), (1.0, 10.0, 40.0), (0.1, 1.0)))
    ),
    "EASE": Outside(recommenders.ease, (16, 1.0), tuple(product((16,), (0.3, 1.0, 3.0)))),
    "EASE, chosen for new items": Outside(recommenders.ease, (16, 3.0), ()),
}
REACH = {"all items, recall": ">= 0.285", "all items, NDCG": ">= 0.299", "new items, recall": ">= 0.086",
         "new items, NDCG": ">= 0.061"}  # fmt: skip


def lime(journey: Journey, variant: str, links: bool = True) -> Scorer:
    """A model of the demo's sizes, trained with the default recipe, with or without its links."""
    chosen = load_settings(str(ROOT / "conf" / "local.yaml")).model(variant)
    recipe = TrainConfig() if links else dataclasses.replace(TrainConfig(), link_steps=0)
    (bundle,) = fit([chosen.model_copy(update={"train": recipe})], journey.day, journey.source)
    return lime_scorer(bundle, journey)


def contestants() -> dict[str, Callable[[Journey], Scorer]]:
    """By name, what learns from a journey."""
    return {
        **{name: functools.partial(_outside, outside) for name, outside in OUTSIDE.items()},
        "LIME without links": lambda journey: lime(journey, "lime-mha", links=False),
        "LIME-MHA": lambda journey: lime(journey, "lime-mha"),
        "LIME-XOR": lambda journey: lime(journey, "lime-xor"),
    }


def _outside(outside: Outside, journey: Journey) -> Scorer:
    return outside.make(journey, *outside.chosen)


def tune(journey: Journey) -> list[Row]:
    """Recall over all and over new items of every recommender from outside with all constants of its grid."""
    rows = []
    for name, outside in OUTSIDE.items():
        for constants in outside.grid:
            qualities = measure(make_lists(outside.make(journey, *constants), journey), journey)
            every, new = (float(quality.recall.mean()) for quality in qualities)
            chosen = "chosen" if constants == outside.chosen else ""
            rows.append(row(f"{name} {constants}: recall, all items", every, chosen))
            rows.append(row(f"{name} {constants}: recall, new items", new, chosen))
            print(name, constants, f"{every:.4f} {new:.4f}", chosen, flush=True)
    return rows


def rows_of(name: str, found: dict[str, Quality], seconds: float) -> list[Row]:
    """The four metrics of a contestant, and what it took to learn and to rank."""
    rows = []
    for scope, quality in found.items():
        for metric, values in (("recall", quality.recall), ("NDCG", quality.ndcg)):
            mean, error = mean_and_error(values.tolist())
            reach = REACH[f"{scope}, {metric}"] if name in ("LIME-MHA", "LIME-XOR") else ""
            rows.append(row(f"{name}: {scope}, {metric}", mean, f"± {error:.4f}", reach))
    return [*rows, row(f"{name}: learns and ranks in", seconds, "s")]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--day", default=TEST)
    parser.add_argument("--tune", action="store_true", help="try the constants of those from outside")
    parser.add_argument("--only", nargs="*", default=list(contestants()), help="contestants by name")
    options = parser.parse_args()
    torch.set_num_threads(2)
    started = time.monotonic()
    if options.tune:
        tried = tune(load(VALIDATION))
        publish("quality-tuning", tried, f"The Complete Journey from {VALIDATION}, K = 100", started)
        return 0
    journey = load(options.day)
    rows: list[Row] = []
    found: dict[str, dict[str, Quality]] = {}
    for name in options.only:
        begun = time.monotonic()
        lists = make_lists(contestants()[name](journey), journey)
        found[name] = dict(zip(("all items", "new items"), measure(lists, journey), strict=True))
        rows += rows_of(name, found[name], time.monotonic() - begun)
        print(name, *(f"{r.value:.4f}" for r in rows[-5:]), flush=True)
    for name in ("LIME-MHA", "LIME-XOR") if "EASE" in found else ():
        for scope in found.get(name, {}):
            low, high = bootstrap_interval((found[name][scope].recall - found["EASE"][scope].recall).tolist())
            rows.append(row(f"{name} - EASE: {scope}, recall, 95 % from", low, f"to {high:.4f}"))
    about = f"The Complete Journey from {options.day}: {len(journey.users):,} households, K = 100, one seed"
    if options.day == TEST and options.only == list(contestants()):
        publish("quality", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
