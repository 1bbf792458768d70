"""Compare the sizes of a model by quality and by exact pairs per second: `python -m benchmarks.pareto`.

LIME-MHA of several sizes (links L, hidden units F, width of the dot E, width D) is trained with the default
recipe on everything before 2017-11-06, and measured on the four weeks after. The recipe was chosen on the
same weeks. The rate is that of one core with the native backend over random candidates. The AUC is that of
the validation answers of 250 learners (`benchmarks/answers.py`) at the same sizes. The benchmark serves to
choose the default sizes, so it uses no test answers. A measured size is kept under `.bench/sizes`.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from benchmarks import answer_trials, answers
from benchmarks.journey import Journey, load
from benchmarks.lists import lime_scorer, make_lists, measure
from benchmarks.quality import VALIDATION
from benchmarks.report import RESULTS, ROOT, keep, kept_folder, publish, row
from lime_model.bundle import Bundle, save_bundle
from lime_model.measure.metrics import auc
from lime_model.recipe import TrainConfig
from lime_model.scoring.backends.choose import make_backend
from lime_model.train.fit import fit_variants
from pipelines.score.calibration import Sizes, measure_speed
from pipelines.settings.settings import load_settings

LEARNERS, CANDIDATES, ROUNDS = 250, 100_000, 5
TITLES = {"recall": "recall@100", "fresh": "recall@100, new items", "auc": "AUC of answers"}


class Size(NamedTuple):
    """The sizes L, F, E and D of a model."""

    links: int
    hidden: int
    dot: int
    width: int

    def __str__(self) -> str:
        return f"L={self.links} F={self.hidden} E={self.dot} D={self.width}"


SIZES = (
    Size(4, 8, 16, 32), Size(8, 16, 40, 40), Size(16, 32, 40, 40), Size(16, 32, 64, 64),
)  # fmt: skip


class Point(NamedTuple):
    """The quality of a size, and its rate in pairs per second."""

    recall: float
    fresh: float
    auc: float
    rate: float


def lists_of(size: Size, journey: Journey) -> tuple[Bundle, float, float]:
    """Train a model of this size; return it with its recall over all and over new items."""
    chosen = load_settings(str(ROOT / "conf" / "local.yaml")).model("lime-mha")
    config = dataclasses.replace(chosen.config, **size._asdict())
    recipe = dataclasses.replace(chosen.recipe, config=config, train=TrainConfig())
    (bundle,) = fit_variants([recipe], journey.day, journey.source)
    every, new = measure(make_lists(lime_scorer(bundle, journey), journey), journey)
    return bundle, float(every.recall.mean()), float(new.recall.mean())


def rates_of(bundles: dict[Size, Path]) -> dict[Size, float]:
    """Measure the exact pairs per second of one core: the median of rounds through all sizes."""
    torch.set_num_threads(1)
    backend = make_backend("native", "cpu")
    found: dict[Size, list[float]] = {size: [] for size in bundles}
    for _ in range(ROUNDS):
        for size, bundle in bundles.items():
            speed = measure_speed(bundle, backend, Sizes(CANDIDATES, history=100, k=100), 2.0)
            found[size].append(speed.pairs_per_second)
    return {size: statistics.median(rates) for size, rates in found.items()}


def auc_of(size: Size, log: answer_trials.Answers) -> float:
    """Train a model of this size on answers; return its AUC on the validation answers."""
    config = dataclasses.replace(answer_trials.CONFIG, **size._asdict())
    trainer = answer_trials.trainer_of(
        log,
        "lime-mha",
        dataclasses.replace(answer_trials.RECIPE, epochs=answers.EPOCHS["part"], learning_rate=4e-3),
        config,
    )
    trainer.fit()
    found = trainer.predict(log.valid, stride=1)
    return auc(found.label, found.logit)


def quality_of(size: Size, journey: Journey, log: answer_trials.Answers, folder: Path) -> dict[str, float]:
    """Return the three measures of quality of a size, and save its bundle.

    Args:
        size: the size.
        journey: the households for the lists.
        log: the answers for the AUC.
        folder: the folder of the bundle.
    """
    bundle, recall, fresh = lists_of(size, journey)
    save_bundle(bundle, folder)
    return {"recall": recall, "fresh": fresh, "auc": auc_of(size, log)}


def draw(points: dict[Size, Point]) -> None:
    """Draw each measure over the rate."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, (name, title) in zip(figure.subplots(1, 3), TITLES.items(), strict=True):
        for size, point in points.items():
            at = (point.rate / 1e6, getattr(point, name))
            axis.plot(*at, "o", color="#4a7a8c")
            axis.annotate(str(size), at, fontsize=7, xytext=(3, 3), textcoords="offset points")
        axis.set_title(title)
        axis.set_xlabel("million exact pairs a second, one core")
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    figure.savefig(RESULTS / "quality-sizes.svg")


def main() -> int:
    """Measure, draw and publish."""
    torch.set_num_threads(2)
    started, journey, log = time.monotonic(), load(VALIDATION), answer_trials.load(answers.LOG, LEARNERS)
    folder = kept_folder(
        "sizes", *(f"benchmarks/{name}.py" for name in ("pareto", "answers", "answer_trials", "lists"))
    )
    bundles = {size: folder / f"{size}.bundle" for size in SIZES}
    found: dict[Size, dict[str, float]] = {}
    for size, bundle in bundles.items():
        found[size] = keep(folder, str(size), functools.partial(quality_of, size, journey, log, bundle))
        print(size, found[size], flush=True)
    points = {size: Point(**found[size], rate=rate) for size, rate in rates_of(bundles).items()}
    rows = [
        row(f"{size}: {what}", value, unit)
        for size, point in points.items()
        for what, value, unit in (
            ("recall", point.recall, ""),
            ("recall, new items", point.fresh, ""),
            ("AUC of answers", point.auc, ""),
            ("rate", point.rate / 1e6, "M pairs/s"),
        )
    ]
    draw(points)
    about = f"The Complete Journey from {VALIDATION}, {LEARNERS} learners, one seed"
    publish("quality-sizes", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
