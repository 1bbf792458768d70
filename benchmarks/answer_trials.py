"""The trials of `answers.py`: the log of answers, the contestants, and their training.

A finished (contestant, seed) is kept under `.bench/labels`; the same code does not train it again.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from benchmarks.report import ROOT, Row, interleave, median_ratio, row
from lime_model.arrays import Bools
from lime_model.bundle import build_model
from lime_model.config import Column, ModelConfig, Variant
from lime_model.digests import code_digest, source_digest
from lime_model.model.features import Encoders
from lime_model.peers.registry import PEERS
from lime_model.recipe import LabelTraining
from lime_model.train.dataset import build_catalogue, build_training_data, fit_encoders
from lime_model.train.event_log import TrainingData
from lime_model.train.labels import Asked, LabelTrainer, Predictions

DONE = ROOT / ".bench" / "labels"
BARE, BF16 = " bare", " bf16"  # suffixes of a contestant without the dot, and of one trained in bf16
IN_BF16 = "lime-xor" + BF16
WORKERS = 2  # trials at a time
FIRST_DAY, CUTOFF = "2000-01-01", "2020-01-01"
HISTORY, MIN_TAKERS = 256, 5
# There are few problems, and each is answered often: decay keeps their embeddings from memorising learners.
RECIPE = LabelTraining(batch=16, weight_decay=0.5, patience=6)
CONFIG = ModelConfig(
    links=16, width=64, hidden=64, dot=64, heads=2, max_events=HISTORY, pool_days=(64.0, 8.0),
    event_types=("answer",), item_columns=(Column("skill"),), labelled=True, without=("bias", "memory"),
    cutoff_ds=CUTOFF,
)  # fmt: skip


class Answers(NamedTuple):
    """The log with its catalogue, and masks `[n]` of the answers of training, validation and test."""

    data: TrainingData
    items: Encoders
    train: Bools
    valid: Bools
    test: Bools


class Trial(NamedTuple):
    """One training of a contestant."""

    name: str
    seed: int
    rate: float
    epochs: float
    learners: int | None

    @property
    def path(self) -> Path:
        """The file of the outcome, whose name and folder depend on everything that can change it."""
        peers = [file for file in files("lime_model.peers").iterdir() if file.name.endswith(".py")]
        ours = [*sorted(peers, key=lambda file: file.name), Path(__file__)]
        code = source_digest(ours) + code_digest("lime_model.train.fit")
        size = self.learners or "all"
        return DONE / code / f"{self.name} {self.seed} {self.rate:g} {self.epochs:g} {size}.npz"


class Outcome(NamedTuple):
    """The test predictions, the best normalised entropy of validation, and seconds to learn and predict."""

    found: Predictions
    valid: float
    seconds: float


@functools.cache
def load(path: Path, learners: int | None = None) -> Answers:
    """Read the log, of only the first `learners` if given."""
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
    """Return the trainer of a contestant: a variant of LIME or a peer, with or without the dot.

    Args:
        answers: the log.
        name: the contestant.
        recipe: how it is trained.
        config: the sizes of the model.
    """
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
    """Return a contestant's name without its suffix."""
    return name.removesuffix(BARE).removesuffix(BF16)


def time_bf16(answers: Answers) -> Row:
    """Compare a training step of LIME-XOR in bf16 with one in fp32, on one core as in the trials."""
    torch.set_num_threads(1)
    steps = {}
    for name in (IN_BF16, kind_of(IN_BF16)):
        trainer = trainer_of(answers, name, RECIPE)
        optimiser = torch.optim.AdamW(trainer.net.parameters(), RECIPE.learning_rate)
        steps[name] = functools.partial(trainer.step, 1, optimiser)
    seconds = interleave(steps, rounds=15)
    return row(f"{IN_BF16}: a step / in fp32", median_ratio(*seconds.values()), "x, one core")


def run(answers: Answers, trial: Trial) -> Outcome:
    """Return the outcome of a trial; train it first if no outcome is kept."""
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
    """Run trials, `WORKERS` at a time with one core each; return their outcomes."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        running = {pool.submit(_run, trial, log): trial for trial in trials}
        for done in as_completed(running):
            trial = running[done]
            result = f"validation NE {done.result().valid:.4f} after {done.result().seconds:.0f} s"
            print(f"{trial.name}, seed {trial.seed}, rate {trial.rate:g}: {result}", flush=True)
    return {trial: done.result() for done, trial in running.items()}
