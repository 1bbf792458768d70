"""How good the lists are: LIME beside recommenders from outside: part of `make bench-quality`.

The Complete Journey split at a day: everything before it to learn from, the four weeks from it on as
the truth; households with 20 purchases before it and one after. Recall and NDCG at 100, macro over
households, recall divides by all relevant items; over all items, and over items new to the household
among lists without its own. LIME's recipe and EASE's λ were chosen on the four weeks before; the grids of all
from outside are tried there by `--tune`, which publishes quality-tuning.json and goes on where it
stopped. `±` is the standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks import recommenders
from benchmarks.journey import Journey, load
from benchmarks.lists import Quality, Scorer, lime_scorer, make_lists, measure
from benchmarks.report import ROOT, Row, keep, kept_folder, publish, row
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


OUTSIDE: dict[str, Outside] = {
    "popularity": Outside(recommenders.popularity, (7,), ((7,), (14,), (28,))),
    "personal frequency, then popularity": Outside(
        recommenders.personal_frequency, (14,), ((7,), (14,), (28,))
    ),
    "item-kNN": Outside(
        recommenders.item_neighbours,
        (200, 10.0),
        ((50, 10.0), (200, 10.0), (800, 10.0), (200, 0.0), (200, 100.0)),
    ),
    "Spark ALS, implicit": Outside(
        recommenders.spark_als,
        (64, 1.0, 0.1),
        ((64, 1.0, 0.1), (64, 10.0, 0.1), (64, 40.0, 0.1), (64, 1.0, 1.0)),
    ),
    "EASE": Outside(
        recommenders.ease,
        (16, 1.0, 1),
        ((16, 0.3, 1), (16, 1.0, 1), (16, 3.0, 1), (16, 100.0, 0), (16, 300.0, 0), (16, 1000.0, 0)),
    ),
    "EASE, chosen for new items": Outside(recommenders.ease, (16, 3.0, 1), ()),
}
REACH = {"all items, recall": (">= 0.285", ">= 0.295"), "all items, NDCG": (">= 0.299", ">= 0.31"),
         "new items, recall": (">= 0.086", ">= 0.095"), "new items, NDCG": (">= 0.061", "")}  # fmt: skip
TRIED = (
    "tried on the weeks before: hide_share .7 to .95, width 32 to 128, dropout .5 to .8, the sizes of "
    "quality-sizes.json; none brings more than the standard error"
)


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

    def measured(make: Callable[..., Scorer], constants: tuple[float, ...]) -> dict[str, float]:
        qualities = measure(make_lists(make(journey, *constants), journey), journey)
        scopes = zip(("all items", "new items"), qualities, strict=True)
        return {scope: float(quality.recall.mean()) for scope, quality in scopes}

    rows, folder = [], kept_folder("tuning", "benchmarks/recommenders.py", "benchmarks/lists.py")
    for name, outside in OUTSIDE.items():
        for constants in outside.grid:
            make = functools.partial(measured, outside.make, constants)
            found = keep(folder, f"{name} {constants}", make)
            chosen = "chosen" if constants == outside.chosen else ""
            rows += [row(f"{name} {constants}: recall, {scope}", found[scope], chosen) for scope in found]
            print(name, constants, *(f"{value:.4f}" for value in found.values()), chosen, flush=True)
    return rows


def rows_of(name: str, found: dict[str, Quality], seconds: float) -> list[Row]:
    """The four metrics of a contestant, and what it took to learn and to rank."""
    rows = []
    for scope, quality in found.items():
        for metric, values in (("recall", quality.recall), ("NDCG", quality.ndcg)):
            mean, error = mean_and_error(values.tolist())
            reach, aim = REACH[f"{scope}, {metric}"] if name in ("LIME-MHA", "LIME-XOR") else ("", "")
            rows.append(row(f"{name}: {scope}, {metric}", mean, f"± {error:.4f}", reach, aim, TRIED))
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
