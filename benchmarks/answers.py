"""Predicting answers: LIME beside other ways to read a history, on one trunk: `make bench-labels`.

ASSISTments 2017: a learner's answers in order, label = answered right. Each learner's positions are split
70 / 10 / 20 into training, validation and test; only first attempts at a problem are asked for, all answers
are history. The log has no clock: an event's day is its position. AUC and normalised entropy over the test
answers, every model reading the history up to the answer before (LIME-XOR too). Differences to LIME-XOR
are paired, their 95 % interval by resampling learners.

The trunk (item and skill embeddings, action embeddings with the label, three pools and the dot of LIME) is
the same for all; `bare` leaves out the dot. All have the same budget and learning rates: nothing is tuned
for one of them yet. All of them take hours on two cores; `--only` and `--learners N` (of the log) look at
a part and publish nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks.report import ROOT, Row, publish, row
from lime_model.bundle import build_model
from lime_model.config import Column, LabelTraining, ModelConfig, Variant
from lime_model.dataset import build_catalogue, build_training_data, fit_encoders
from lime_model.examples import TrainingData
from lime_model.features import Encoders, read_labels
from lime_model.label_training import Asked, LabelTrainer, Predictions
from lime_model.metrics import auc, auc_interval, grouped_auc, normalised_entropy
from lime_model.peers import PEERS
from lime_model.windows import Bools

LOG = ROOT.parent / "shared" / "data" / "assist2017_events.parquet"
BARE = " bare"  # suffix of a contestant without the dot
FIRST_DAY, CUTOFF = "2000-01-01", "2020-01-01"
HISTORY, MIN_TAKERS = 256, 5
CONFIG = ModelConfig(
    links=16, width=64, hidden=64, dot=64, heads=2, max_events=HISTORY, pool_days=(64.0, 8.0),
    event_types=("answer",), item_columns=(Column("skill"),), labelled=True, without=("bias", "memory"),
    cutoff_ds=CUTOFF,
)  # fmt: skip


class Answers(NamedTuple):
    """The log with its catalogue, labels `[n]`, and what is asked for in training, validation and test."""

    data: TrainingData
    items: Encoders
    label: NDArray[np.float64]
    owner: NDArray[np.int64]
    train: Bools
    valid: Bools
    test: Bools


def load(path: Path, learners: int | None = None) -> Answers:
    """The log, of the first `learners` if given."""
    log = pd.read_parquet(path).sort_values(["user_id", "pos"], kind="stable")
    if learners:
        log = log[log["user_id"] < learners]
    share = log.groupby("user_id").cumcount() / log.groupby("user_id")["pos"].transform("size")
    first = ~log.duplicated(["user_id", "item_id"])
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
    words = fit_encoders(items, CONFIG.item_columns)
    seen = events.filter(pa.array((share < 0.7).to_numpy()))
    catalogue = build_catalogue(items, seen, words, MIN_TAKERS)
    data = build_training_data(events, pa.table({"user_id": pa.array([], pa.int64())}), catalogue, {}, CONFIG)
    part = np.digitize(share, [0.7, 0.8])
    asked = (first.to_numpy() & (part == p) for p in range(3))
    return Answers(data, words, read_labels(events), data.log.owner, *asked)


def train(answers: Answers, name: str, recipe: LabelTraining) -> LabelTrainer:
    """A contestant, trained: a variant of LIME or a peer, with or without the dot."""
    kind = name.removesuffix(BARE)
    variant: Variant = "lime-xor" if kind == "lime-xor" else "lime-mha"
    without = (*CONFIG.without, "dot") if name.endswith(BARE) else CONFIG.without
    config = dataclasses.replace(CONFIG, variant=variant, without=without)
    torch.manual_seed(recipe.seed)
    model = build_model(config, answers.data.catalogue, answers.items, {})
    peer = PEERS[kind](config) if kind in PEERS else None
    trainer = LabelTrainer(
        model, answers.data, answers.label, Asked(answers.train, answers.valid), recipe, peer
    )
    trainer.fit()
    return trainer


def rows_of(name: str, found: Predictions, owner: NDArray[np.int64], seconds: float) -> list[Row]:
    """AUC, inside learners too, normalised entropy, and seconds to learn and to predict."""
    inside = grouped_auc(found.label, found.logit, owner[found.event])
    reach = (">= 0.783", "<= 0.817") if name in ("lime-mha", "lime-xor") else ("", "")
    return [
        row(f"{name}: AUC", auc(found.label, found.logit), f"{inside:.4f} inside learners", reach[0]),
        row(f"{name}: normalised entropy", normalised_entropy(found.label, found.logit), "", reach[1]),
        row(f"{name}: learns and predicts in", seconds, "s"),
    ]


def main() -> int:
    """Measure and publish."""
    names = ["lime-xor", "lime-mha", *PEERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--learners", type=int)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--only", nargs="*", default=[*names, *(name + BARE for name in names)])
    options = parser.parse_args()
    torch.set_num_threads(2)
    started, answers = time.monotonic(), load(options.log, options.learners)
    recipe = dataclasses.replace(LabelTraining(), epochs=options.epochs)
    rows: list[Row] = []
    found: dict[str, Predictions] = {}
    for name in options.only:
        begun = time.monotonic()
        trainer = train(answers, name, recipe)
        found[name] = trainer.predict(answers.test, stride=1)
        rows += rows_of(name, found[name], answers.owner, time.monotonic() - begun)
        print(name, *(f"{r.value:.4f}" for r in rows[-3:]), flush=True)
    for name, theirs in found.items():
        if name != "lime-xor" and "lime-xor" in found:
            mine = found["lime-xor"]
            low, high = auc_interval(mine.label, mine.logit, answers.owner[mine.event], minus=theirs.logit)
            rows.append(row(f"lime-xor - {name}: AUC, 95 % from", low, f"to {high:.4f}"))
            print(rows[-1].what, f"{low:.4f} to {high:.4f}", flush=True)
    if options.learners is None and len(options.only) == 2 * len(names):
        count = len(found["lime-xor"].event)
        about = f"ASSISTments 2017, {count:,} test answers, {options.epochs:g} epochs, one seed"
        publish("labels", rows, about, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
