"""Predicting answers: LIME beside other ways to read a history, on one trunk: part of `make bench-quality`.

ASSISTments 2017: a learner's answers in order, label = answered right. Each learner's positions are split
70 / 10 / 20 into training, validation and test; the log is first attempts at a problem only: half of all
answers repeat the one before, and would fill the history. It has no clock: an event's day is its place in it.
AUC and normalised entropy over the test answers, every model reading up to the answer before (LIME-XOR too).
Differences of LIME to the others are paired over the same answers and seeds; 95 % intervals by resampling
learners and seeds together.

The trunk (item and skill embeddings, action embeddings with the label, three pools, the dot and dropout) is
the same for all, though LIME's dot reads its links, too, as its score has it; `bare` leaves out the dot. Each
trains for `EPOCHS` and is taken as it was best in validation, at the best rate of label-rates.json, which
`--search` publishes: `RATE_GRID` by validation, on a part of the log, LIME-XOR and HSTU also bare; the other
bare ones take the rate they have with the dot. Two trials run at a time, each on one core.

    python -m benchmarks.answers --learners 250     # a part of the log: `make bench-quality`
    python -m benchmarks.answers                    # the whole log, some contestants; can be stopped

A finished (contestant, seed) lies under `.bench/labels` and is not trained again by the same code.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.resources import files
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks.report import RESULTS, ROOT, Row, interleave, median_ratio, publish, row
from lime_model.arrays import Bools
from lime_model.bundle import build_model
from lime_model.config import Column, LabelTraining, ModelConfig, Variant
from lime_model.digests import code_digest, source_digest
from lime_model.measure.metrics import auc, auc_interval, grouped_auc, interval_over_users, normalised_entropy
from lime_model.model.features import Encoders
from lime_model.peers.registry import PEERS
from lime_model.train.dataset import build_catalogue, build_training_data, fit_encoders
from lime_model.train.event_log import EventLog, TrainingData
from lime_model.train.labels import Asked, LabelTrainer, Predictions

LOG = ROOT.parent / "shared" / "data" / "assist2017_events.parquet"
DONE = ROOT / ".bench" / "labels"
EPOCHS = {"part": 4.0, "whole": 6.0}  # with more, validation gets worse again
BARE, BF16 = " bare", " bf16"  # suffixes of a contestant without the dot, and of one trained in bf16
IN_BF16 = "lime-xor" + BF16
NAMES = ("lime-xor", "lime-mha", *PEERS)
NOT_BELOW = ("two-tower", "truncated-mha", "linformer")  # LIME is not below these by more than noise
WHOLE = ("lime-xor", "lime-mha", "two-tower")  # on the whole log, the first seed
SEEDS = (1, 2, 3)  # on the whole log the first
SEARCHED = (*NAMES, "lime-xor" + BARE, "hstu" + BARE)  # for their rates
RATE_GRID = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
BEST_RATE = ": best learning rate"  # of a contestant, in label-rates.json
WORKERS = 2  # trials at a time
FIRST_DAY, CUTOFF = "2000-01-01", "2020-01-01"
HISTORY, MIN_TAKERS = 256, 5
# Problems are few and met often: decay keeps their embeddings from learning the learners by heart.
RECIPE = LabelTraining(batch=16, weight_decay=0.5, patience=6)
CONFIG = ModelConfig(
    links=16, width=64, hidden=64, dot=64, heads=2, max_events=HISTORY, pool_days=(64.0, 8.0),
    event_types=("answer",), item_columns=(Column("skill"),), labelled=True, without=("bias", "memory"),
    cutoff_ds=CUTOFF,
)  # fmt: skip


class Answers(NamedTuple):
    """The log with its catalogue, and what is asked for in training, validation and test `[n]`."""

    data: TrainingData
    items: Encoders
    train: Bools
    valid: Bools
    test: Bools


class Trial(NamedTuple):
    """A contestant, trained once."""

    name: str
    seed: int
    rate: float
    epochs: float
    learners: int | None

    @property
    def path(self) -> Path:
        """Where its outcome lies, by all that it depends on."""
        peers = [file for file in files("lime_model.peers").iterdir() if file.name.endswith(".py")]
        ours = [*sorted(peers, key=lambda file: file.name), Path(__file__)]
        code = source_digest(ours) + code_digest("lime_model.train.fit")
        size = self.learners or "all"
        return DONE / code / f"{self.name} {self.seed} {self.rate:g} {self.epochs:g} {size}.npz"


class Outcome(NamedTuple):
    """Test predictions, validation's normalised entropy at its best, seconds to learn and to predict."""

    found: Predictions
    valid: float
    seconds: float


@functools.cache
def load(path: Path, learners: int | None = None) -> Answers:
    """The log, of the first `learners` if given."""
    log = pd.read_parquet(path).sort_values(["user_id", "pos"], kind="stable")
    if learners:
        log = log[log["user_id"] < learners]
    share = log.groupby("user_id").cumcount() / log.groupby("user_id")["pos"].transform("size")
    first = ~log.duplicated(["user_id", "item_id"])
    log, share = log[first], share[first]
    day = pd.Timestamp(FIRST_DAY, tz="UTC") + pd.to_timedelta(log.groupby("user_id").cumcount(), unit="D")
    events = pa.table(
        {
            "user_id": log["user_id"].to_numpy(), "item_id": log["item_id"].to_numpy(),
            "event_ts": pa.array(day, pa.timestamp("us", tz="UTC")), "event_type": ["answer"] * len(log),
            "session_id": [""] * len(log), "label": log["label"].to_numpy(np.float64),
        }
    )  # fmt: skip
    problems = log.drop_duplicates("item_id").rename(columns={"skill_id": "skill"})[["item_id", "skill"]]
    items = pa.Table.from_pandas(problems.astype({"skill": str}), preserve_index=False)
    encoders = fit_encoders(items, CONFIG.item_columns)
    seen = events.filter(pa.array((share < 0.7).to_numpy()))
    catalogue = build_catalogue(items, lambda: iter([seen]), encoders, MIN_TAKERS)
    users = pa.table({"user_id": pa.array([], pa.int64())})
    data = build_training_data(lambda: iter([events]), users, catalogue, {}, CONFIG)
    part = np.digitize(share, [0.7, 0.8])
    asked = (part == p for p in range(3))
    return Answers(data, encoders, *asked)


def trainer_of(
    answers: Answers, name: str, recipe: LabelTraining, config: ModelConfig = CONFIG
) -> LabelTrainer:
    """Of a contestant: a variant of LIME or a peer, with or without the dot."""
    kind = kind_of(name)
    variant: Variant = "lime-xor" if kind == "lime-xor" else "lime-mha"
    without = (*config.without, "dot") if name.endswith(BARE) else config.without
    config = dataclasses.replace(config, variant=variant, without=without)
    torch.manual_seed(recipe.seed)
    model = build_model(config, answers.data.catalogue, answers.items, {})
    peer = PEERS[kind](config, recipe.dropout) if kind in PEERS else None
    recipe = dataclasses.replace(recipe, bf16=name.endswith(BF16))
    return LabelTrainer(model, answers.data, Asked(answers.train, answers.valid), recipe, peer)


def kind_of(name: str) -> str:
    """A contestant's name without its suffix."""
    return name.removesuffix(BARE).removesuffix(BF16)


def time_bf16(answers: Answers) -> Row:
    """A step of LIME-XOR in bf16 beside the same in fp32, on one core as the trials."""
    torch.set_num_threads(1)
    steps = {}
    for name in (IN_BF16, kind_of(IN_BF16)):
        trainer = trainer_of(answers, name, RECIPE)
        optimiser = torch.optim.AdamW(trainer.net.parameters(), RECIPE.learning_rate)
        steps[name] = functools.partial(trainer.step, 1, optimiser)
    seconds = interleave(steps, rounds=15)
    return row(f"{IN_BF16}: a step / in fp32", median_ratio(*seconds.values()), "x, one core")


def run(answers: Answers, trial: Trial) -> Outcome:
    """A trial's outcome, trained if it is not there yet."""
    if trial.path.exists():
        stored = np.load(trial.path)
        found = Predictions(stored["event"], stored["label"], stored["logit"])
        return Outcome(found, float(stored["valid"]), float(stored["seconds"]))
    begun = time.monotonic()
    recipe = dataclasses.replace(RECIPE, epochs=trial.epochs, learning_rate=trial.rate, seed=trial.seed)
    trainer = trainer_of(answers, trial.name, recipe)
    trainer.fit()
    found = trainer.predict(answers.test, stride=1)
    outcome = Outcome(found, min(row["valid_ne"] for row in trainer.curve), time.monotonic() - begun)
    trial.path.parent.mkdir(parents=True, exist_ok=True)
    partial = trial.path.with_suffix(".partial.npz")
    np.savez(partial, **found._asdict(), valid=outcome.valid, seconds=outcome.seconds)
    partial.rename(trial.path)
    return outcome


def _run(trial: Trial, log: Path) -> Outcome:
    return run(load(log, trial.learners), trial)


def run_all(trials: Sequence[Trial], log: Path) -> dict[Trial, Outcome]:
    """Outcomes of trials, `WORKERS` at a time, one core each."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(_run, trial, log): trial for trial in trials}
        for done in as_completed(running):
            trial = running[done]
            says = f"validation NE {done.result().valid:.4f} after {done.result().seconds:.0f} s"
            print(f"{trial.name}, seed {trial.seed}, rate {trial.rate:g}: {says}", flush=True)
    return {trial: done.result() for done, trial in running.items()}


def best_rates() -> dict[str, float]:
    """What `--search` found, by contestant."""
    found = json.loads((RESULTS / "label-rates.json").read_text())["rows"]
    return {r["what"].removesuffix(BEST_RATE): r["value"] for r in found if r["what"].endswith(BEST_RATE)}


def rows_of(name: str, outcomes: Sequence[Outcome], log: EventLog, whole: bool) -> list[Row]:
    """AUC, inside learners too, normalised entropy, and seconds: means over the seeds."""
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
    """Difference of AUC, a mean over seeds, and its 95 % interval over learners and seeds drawn together."""
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
    """Validation's normalised entropy of every contestant at every rate, and its best rate."""
    trials = {name: [Trial(name, SEEDS[0], rate, epochs, learners) for rate in RATE_GRID] for name in names}
    outcomes = run_all([trial for each in trials.values() for trial in each], log)
    rows = []
    for name, each in trials.items():
        rows += [row(f"{name}: validation NE at {t.rate:g}", outcomes[t].valid, "") for t in each]
        rows.append(row(name + BEST_RATE, min(each, key=lambda t: outcomes[t].valid).rate, ""))
    return rows


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--learners", type=int, help="the first of them only")
    parser.add_argument("--only", nargs="*", help="contestants by name; publishes nothing")
    parser.add_argument("--search", action="store_true", help="search the learning rates")
    options = parser.parse_args()
    if not options.log.exists():
        parser.error(
            f"{options.log} is not there; --log names ASSISTments 2017 as Parquet: user_id, pos (of the "
            "answer), item_id, skill_id, label (0 or 1)"
        )
    started, whole = time.monotonic(), options.learners is None
    epochs = EPOCHS["whole" if whole else "part"]
    names = options.only or (WHOLE if whole else [*NAMES, *(name + BARE for name in NAMES), IN_BF16])
    about = f"ASSISTments 2017, {options.learners or 'all'} learners, at most {epochs:g} epochs"
    if options.search:
        searched = search(options.only or SEARCHED, epochs, options.learners, options.log)
        publish("label-rates", searched, about, started)
        return 0
    rates = best_rates()
    trials = {
        name: [
            Trial(name, seed, rates.get(name, rates[kind_of(name)]), epochs, options.learners)
            for seed in (SEEDS[:1] if whole else SEEDS)
        ]
        for name in names
    }
    outcomes = run_all([trial for each in trials.values() for trial in each], options.log)
    found = {name: [outcomes[trial] for trial in each] for name, each in trials.items()}
    log = load(options.log, options.learners).data.log
    rows: list[Row] = []
    for name, each in found.items():
        rows += rows_of(name, each, log, whole)
    for (name, theirs), mine in product(found.items(), ("lime-xor", "lime-mha")):
        ours = mine + (BARE if name.endswith(BARE) else "")
        if name != ours and ours in found:
            difference, low, high = compare(found[ours], theirs, log)
            reach = (">= -0.003",) if kind_of(name) == "hstu" and mine == "lime-xor" else ()
            rows.append(row(f"{ours} - {name}: AUC", difference, f"95 % {low:.4f} to {high:.4f}", *reach))
            if kind_of(name) in NOT_BELOW:
                rows.append(row(f"{ours} - {name}: AUC, upper end", high, "", ">= 0"))
    if IN_BF16 in found:
        rows.append(time_bf16(load(options.log, options.learners)))
    if not options.only:
        asked = f"{about}; {len(found['lime-xor'][0].found.event):,} test answers"
        publish("labels" if whole else "labels-part", rows, asked, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
