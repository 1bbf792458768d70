"""Compare the quality of the lists of LIME with other recommenders; part of `make bench-quality`.

The Complete Journey is split at a day: models learn from everything before it, and the four weeks from it on
are the truth. Households with 20 purchases before the day and one after it count. The measures are recall and
NDCG at 100, as means over households; recall divides by all relevant items. There are two scopes: all items,
and items that are new to the household, in lists without the items it has bought.

LIME's recipe was chosen on the four weeks before, and so were the constants of the other recommenders, for
each scope. `--tune` tries their grids on those weeks, and also LIME with links that are trained on as many
examples as the rest. It publishes quality-tuning.json with the best constants, and continues where it
stopped. `±` is the standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch

from benchmarks import recommenders
from benchmarks.journey import Journey, load
from benchmarks.lists import Quality, Scorer, lime_scorer, make_lists, measure
from benchmarks.report import RESULTS, ROOT, Row, keep, kept_folder, publish, row
from lime_model.measure.metrics import bootstrap_interval, mean_and_error
from lime_model.recipe import TrainConfig
from lime_model.train.fit import fit_variants
from pipelines.settings.settings import load_settings

TEST, VALIDATION = "2017-12-04", "2017-11-06"


class Outside(NamedTuple):
    """Another recommender, given by a function that makes it and the constants that `--tune` tries."""

    make: Callable[..., Scorer]
    grid: tuple[tuple[Any, ...], ...]


EASES = (
    *((16, pull, 1) for pull in (1.0, 3.0, 10.0)),
    *((16, pull, 0) for pull in (300.0, 1000.0, 3000.0)),
)
OUTSIDE: dict[str, Outside] = {
    "popularity": Outside(recommenders.popularity, ((7,), (14,), (28,))),
    "personal frequency, then popularity": Outside(
        recommenders.personal_frequency, tuple(product((7, 28), (30.0, 90.0, 180.0, 1e4)))
    ),
    "item-kNN": Outside(recommenders.item_neighbours, tuple(product((800, 3200), (10.0, 100.0)))),
    "Spark ALS, implicit": Outside(
        recommenders.spark_als, ((64, 1.0, 0.1), (64, 10.0, 0.1), (64, 1.0, 0.03), (128, 1.0, 0.1))
    ),
    "EASE": Outside(recommenders.ease, EASES),
    "EASE, popularity and personal frequency": Outside(
        recommenders.blend,
        tuple(((16, 3.0, 1), *each, 90.0) for each in product((0.1, 0.5, 1.5), (5.0, 20.0, 60.0))),
    ),
}
BEST = ": place in its grid, "  # such a row of quality-tuning.json names the best constants for a scope
SCOPES = ("all items", "new items")
REACH = {"all items, recall": (">= 0.285", ">= 0.295"), "all items, NDCG": (">= 0.299", ">= 0.31"),
         "new items, recall": (">= 0.086", ">= 0.095"), "new items, NDCG": (">= 0.061", "")}  # fmt: skip
EQUAL = TrainConfig().steps * TrainConfig().batch // TrainConfig().link_batch
LINK_STEPS = {
    0: "LIME without links",
    TrainConfig().link_steps: "LIME-MHA",
    EQUAL: "LIME-MHA, links trained on as many examples as the rest",
}
TRIED = (
    "tried on the weeks before: hide_share .7 to .95, width 32 to 128, dropout .5 to .8, the sizes of "
    "quality-sizes.json; none brings more than the standard error"
)


def lime(journey: Journey, variant: str, link_steps: int | None = None) -> Scorer:
    """Train a model of the demo's sizes with the default recipe; return its scorer.

    Args:
        journey: the households to learn from.
        variant: the model of the settings.
        link_steps: training steps of the links (default: those of the recipe).
    """
    chosen = load_settings(str(ROOT / "conf" / "local.yaml")).model(variant)
    train = TrainConfig() if link_steps is None else dataclasses.replace(TrainConfig(), link_steps=link_steps)
    recipe = dataclasses.replace(chosen.recipe, train=train)
    (bundle,) = fit_variants([recipe], journey.day, journey.source)
    return lime_scorer(bundle, journey)


def contestants() -> dict[str, dict[str, Callable[[Journey], Scorer]]]:
    """Return for each contestant and each scope a function that learns from a journey."""
    lists: dict[str, Callable[[Journey], Scorer]] = {
        "LIME without links": lambda journey: lime(journey, "lime-mha", link_steps=0),
        "LIME-MHA": lambda journey: lime(journey, "lime-mha"),
        "LIME-XOR": lambda journey: lime(journey, "lime-xor"),
    }
    tuned = json.loads((RESULTS / "quality-tuning.json").read_text())["rows"]
    best = {r["what"]: int(r["value"]) for r in tuned if BEST in r["what"]}
    outside = {}
    for name, each in OUTSIDE.items():
        places = [best[name + BEST + scope] for scope in SCOPES]
        makers = {place: _maker(each, place) for place in places}
        outside[name] = {scope: makers[place] for scope, place in zip(SCOPES, places, strict=True)}
    return outside | {name: dict.fromkeys(SCOPES, make) for name, make in lists.items()}


def _maker(outside: Outside, place: int) -> Callable[[Journey], Scorer]:
    return lambda journey: outside.make(journey, *outside.grid[place])


def measure_scopes(makers: Mapping[str, Callable[[Journey], Scorer]], journey: Journey) -> dict[str, Quality]:
    """Measure a contestant in each scope, with the recommender that was tuned for that scope."""
    found: dict[str, Quality] = {}
    for make in dict.fromkeys(makers.values()):
        both = dict(zip(SCOPES, measure(make_lists(make(journey), journey), journey), strict=True))
        found |= {scope: both[scope] for scope in SCOPES if makers[scope] is make}
    return found


def tune(journey: Journey) -> list[Row]:
    """Measure the recall of each recommender with all its constants, and of LIME by steps of its links."""

    def measured(make: Callable[[Journey], Scorer]) -> dict[str, float]:
        qualities = measure(make_lists(make(journey), journey), journey)
        return {scope: float(quality.recall.mean()) for scope, quality in zip(SCOPES, qualities, strict=True)}

    files = ("recommenders", "lists", "journey")
    rows, folder = [], kept_folder("tuning", *(f"benchmarks/{name}.py" for name in files))
    for name, outside in OUTSIDE.items():
        found = []
        for place, constants in enumerate(outside.grid):
            make = _maker(outside, place)
            found.append(keep(folder, f"{name} {constants}", functools.partial(measured, make)))
            print(name, constants, *(f"{value:.4f}" for value in found[-1].values()), flush=True)
            rows += [row(f"{name} {constants}: recall, {scope}", found[-1][scope], "") for scope in SCOPES]
        for scope in SCOPES:
            place = max(range(len(found)), key=lambda i: found[i][scope])
            rows.append(row(name + BEST + scope, place, str(outside.grid[place])))
    for steps, about in LINK_STEPS.items():
        make = functools.partial(lime, variant="lime-mha", link_steps=steps)
        quality = keep(folder, f"links {steps}", functools.partial(measured, make))
        print(about, *(f"{value:.4f}" for value in quality.values()), flush=True)
        rows += [row(f"{about}: recall, {scope}", quality[scope], "") for scope in SCOPES]
    return rows


def rows_of(name: str, found: dict[str, Quality], seconds: float) -> list[Row]:
    """Return the rows of a contestant: four metrics, and the seconds to learn and to rank.

    Args:
        name: the contestant.
        found: its quality in each scope.
        seconds: the seconds that it took.
    """
    rows = []
    for scope, quality in found.items():
        for metric, values in (("recall", quality.recall), ("NDCG", quality.ndcg)):
            mean, error = mean_and_error(values.tolist())
            reach, aim = REACH[f"{scope}, {metric}"] if name in ("LIME-MHA", "LIME-XOR") else ("", "")
            rows.append(row(f"{name}: {scope}, {metric}", mean, f"± {error:.4f}", reach, aim, TRIED))
    return [*rows, row(f"{name}: learns and ranks in", seconds, "s")]


def main() -> int:
    """Measure the contestants, or tune them, and publish the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--day", default=TEST)
    parser.add_argument("--tune", action="store_true", help="try the constants of the other recommenders")
    parser.add_argument("--only", nargs="*", help="names of contestants; nothing is published")
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
    every = contestants()
    for name in options.only or every:
        begun = time.monotonic()
        found[name] = measure_scopes(every[name], journey)
        rows += rows_of(name, found[name], time.monotonic() - begun)
        print(name, *(f"{r.value:.4f}" for r in rows[-5:]), flush=True)
    for name, other in product(("LIME-MHA", "LIME-XOR"), OUTSIDE):
        for scope in SCOPES if name in found and other in found else ():
            more = found[name][scope].recall - found[other][scope].recall
            low, high = bootstrap_interval(more.tolist())
            about = f"95 % {low:.4f} to {high:.4f}"
            rows.append(row(f"{name} - {other}: {scope}, recall", float(more.mean()), about))
    about = f"The Complete Journey from {options.day}: {len(journey.users):,} households, K = 100, one seed"
    if options.day == TEST and not options.only:
        publish("quality", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
