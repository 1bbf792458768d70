"""Compare predictions of answers by LIME and by other ways to read a history; part of `make bench-quality`.

The data is ASSISTments 2017: a learner's answers in order, with the label 1 for a right answer. Each
learner's positions are split 70 / 10 / 20 into training, validation and test. The log holds only first
attempts at a problem: half of all answers repeat the one before, and would fill the history. The log has no
clock, so the day of an event is its position. The measures are AUC and normalised entropy over the test
answers; every model, LIME-XOR included, reads the history up to the answer before. Differences between LIME
and the others are paired over the same answers and seeds; their 95 % intervals come from resampling learners
and seeds together.

All models share the trunk: item and skill embeddings, action embeddings with the label, three pools, the dot
and dropout. Only LIME's dot also reads its links, as in its score. A contestant with the suffix `bare` has no
dot. Each trains for `EPOCHS` and is taken at its best validation, with its best rate from label-rates.json.
`--search` publishes that file: it tries `RATE_GRID` on a part of the log by validation, for LIME-XOR and HSTU
also without the dot; the other bare contestants use the rate that is best with the dot. Two trials run at a
time, each on one core; see `answer_trials.py`.

    python -m benchmarks.answers --learners 250     # a part of the log: `make bench-quality`
    python -m benchmarks.answers                    # the whole log, some contestants; can be stopped
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.answer_trials import (
    BARE,
    IN_BF16,
    Outcome,
    Trial,
    kind_of,
    load,
    run_all,
    time_bf16,
)
from benchmarks.report import RESULTS, ROOT, Row, publish, row
from lime_model.measure.metrics import auc, auc_interval, grouped_auc, interval_over_users, normalised_entropy
from lime_model.peers.registry import PEERS
from lime_model.train.event_log import EventLog

LOG = ROOT.parent / "shared" / "data" / "assist2017_events.parquet"
EPOCHS = {"part": 4.0, "whole": 6.0}  # with more epochs, validation gets worse again
NAMES = ("lime-xor", "lime-mha", *PEERS)
NOT_BELOW = ("two-tower", "truncated-mha", "linformer")  # LIME is not below these by more than noise
WHOLE = ("lime-xor", "lime-mha", "two-tower")  # contestants on the whole log
SEEDS = (1, 2, 3)  # the whole log uses only the first
SEARCHED = (*NAMES, "lime-xor" + BARE, "hstu" + BARE)  # contestants whose rates are searched
RATE_GRID = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
BEST_RATE = ": best learning rate"  # the suffix of such a row in label-rates.json


def best_rates() -> dict[str, float]:
    """Read the best rate of each contestant that `--search` has published."""
    found = json.loads((RESULTS / "label-rates.json").read_text())["rows"]
    return {r["what"].removesuffix(BEST_RATE): r["value"] for r in found if r["what"].endswith(BEST_RATE)}


def rows_of(name: str, outcomes: Sequence[Outcome], log: EventLog, whole: bool) -> list[Row]:
    """Return the rows of a contestant: means over the seeds of AUC, normalised entropy and seconds.

    Args:
        name: the contestant.
        outcomes: its outcomes, one for each seed.
        log: the log of answers, which knows the learner of each.
        whole: whether this is the whole log, for which LIME has targets.
    """
    found = [outcome.found for outcome in outcomes]
    inside = np.mean([grouped_auc(f.label, f.logit, log.owner(f.event)) for f in found])
    low, high = auc_interval(found[0].label, found[0].logit, log.owner(found[0].event))
    ours = whole and name in ("lime-mha", "lime-xor")
    aims = {"AUC": (">= 0.783", ">= 0.79"), "NE": ("<= 0.817", "<= 0.808")} if ours else {}
    measured = float(np.mean([auc(f.label, f.logit) for f in found]))
    entropy = float(np.mean([normalised_entropy(f.label, f.logit) for f in found]))
    each = " ".join(f"{auc(f.label, f.logit):.4f}" for f in found)
    about = f"95 % {low:.4f} to {high:.4f}; {inside:.4f} inside learners; by seed {each}"
    return [
        row(f"{name}: AUC", measured, about, *aims.get("AUC", ())),
        row(f"{name}: normalised entropy", entropy, "", *aims.get("NE", ())),
        row(f"{name}: learns and predicts in", float(np.mean([o.seconds for o in outcomes])), "s"),
    ]


def compare(mine: Sequence[Outcome], theirs: Sequence[Outcome], log: EventLog) -> tuple[float, float, float]:
    """Return the mean difference of AUC over seeds, and its 95 % interval.

    The interval resamples learners and seeds together.

    Args:
        mine: outcomes of one contestant, one for each seed.
        theirs: outcomes of the other, for the same seeds.
        log: the log of answers, which knows the learner of each.
    """
    label = mine[0].found.label
    logits = [(a.found.logit, b.found.logit) for a, b in zip(mine, theirs, strict=True)]

    def differ(seeds: NDArray[np.int64], events: NDArray[np.int64] | slice) -> float:
        each = [
            auc(label[events], a[events]) - auc(label[events], b[events])
            for a, b in (logits[s] for s in seeds)
        ]
        return float(np.mean(each))

    low, high = interval_over_users(
        lambda events, rng: differ(rng.integers(0, len(logits), len(logits)), events),
        log.owner(mine[0].found.event),
    )
    return differ(np.arange(len(logits)), slice(None)), low, high


def search(names: Sequence[str], epochs: float, learners: int | None, log: Path) -> list[Row]:
    """Return the validation's normalised entropy of every contestant at every rate, and its best rate.

    Args:
        names: the contestants.
        epochs: the most epochs of a trial.
        learners: the number of learners, or None for the whole log.
        log: the Parquet file of the log.
    """
    trials = {name: [Trial(name, SEEDS[0], rate, epochs, learners) for rate in RATE_GRID] for name in names}
    outcomes = run_all([trial for each in trials.values() for trial in each], log)
    rows = []
    for name, each in trials.items():
        rows += [row(f"{name}: validation NE at {t.rate:g}", outcomes[t].valid, "") for t in each]
        rows.append(row(name + BEST_RATE, min(each, key=lambda t: outcomes[t].valid).rate, ""))
    return rows


def main() -> int:
    """Measure the contestants and publish the results."""
    options = parse()
    started, whole = time.monotonic(), options.learners is None
    epochs = EPOCHS["whole" if whole else "part"]
    about = f"ASSISTments 2017, {options.learners or 'all'} learners, at most {epochs:g} epochs"
    if options.search:
        searched = search(options.only or SEARCHED, epochs, options.learners, options.log)
        publish("label-rates", searched, about, started)
        return 0
    names = options.only or (WHOLE if whole else [*NAMES, *(name + BARE for name in NAMES), IN_BF16])
    found = train_all(names, epochs, options.learners, options.log)
    answers = load(options.log, options.learners)
    rows: list[Row] = []
    for name, each in found.items():
        rows += rows_of(name, each, answers.data.log, whole)
    rows += differences(found, answers.data.log)
    if IN_BF16 in found:
        rows.append(time_bf16(answers))
    if not options.only:
        asked = f"{about}; {len(found['lime-xor'][0].found.event):,} test answers"
        publish("labels" if whole else "labels-part", rows, asked, started)
    return 0


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--learners", type=int, help="use only so many learners (default: all)")
    parser.add_argument("--only", nargs="*", help="names of contestants; nothing is published")
    parser.add_argument("--search", action="store_true", help="search the learning rates")
    options = parser.parse_args()
    if not options.log.exists():
        parser.error(
            f"{options.log} is not there; --log names ASSISTments 2017 as Parquet: user_id, pos (of the "
            "answer), item_id, skill_id, label (0 or 1)"
        )
    return options


def train_all(
    names: Sequence[str], epochs: float, learners: int | None, log: Path
) -> dict[str, list[Outcome]]:
    """Train contestants at their best rates; return the outcomes of each, one for each seed.

    Args:
        names: the contestants.
        epochs: the most epochs of a trial.
        learners: the number of learners, or None for the whole log with its single seed.
        log: the Parquet file of the log.
    """
    rates, seeds = best_rates(), SEEDS[:1] if learners is None else SEEDS
    if without := [name for name in names if name not in rates and kind_of(name) not in rates]:
        raise SystemExit(f"label-rates.json has no learning rate of {', '.join(without)}: run --search first")
    trials = {
        name: [
            Trial(name, seed, rates[name if name in rates else kind_of(name)], epochs, learners)
            for seed in seeds
        ]
        for name in names
    }
    outcomes = run_all([trial for each in trials.values() for trial in each], log)
    return {name: [outcomes[trial] for trial in each] for name, each in trials.items()}


def differences(found: Mapping[str, Sequence[Outcome]], log: EventLog) -> list[Row]:
    """Compare the AUC of both LIMEs with that of every other contestant."""
    rows = []
    for (name, theirs), mine in product(found.items(), ("lime-xor", "lime-mha")):
        ours = mine + (BARE if name.endswith(BARE) else "")
        if name != ours and ours in found:
            difference, low, high = compare(found[ours], theirs, log)
            reach = (">= -0.003",) if kind_of(name) == "hstu" and mine == "lime-xor" else ()
            rows.append(row(f"{ours} - {name}: AUC", difference, f"95 % {low:.4f} to {high:.4f}", *reach))
            if kind_of(name) in NOT_BELOW:
                rows.append(row(f"{ours} - {name}: AUC, upper end", high, "", ">= 0"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
