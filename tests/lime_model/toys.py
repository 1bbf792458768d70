"""Small models, users, bundles and training logs that several test files share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lime_model.bundle import Bundle
from lime_model.config import Column, ModelConfig, Variant
from lime_model.model.column_kinds import Vocabulary
from lime_model.model.features import Catalogue, Encoders, encode_columns
from lime_model.model.lime import Features, LimeModel
from lime_model.recipe import TrainConfig
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.event_log import EventLog, TrainingData
from lime_model.train.two_phase import Trainer, start_from_svd

ITEMS = 30
TWO_TASKS = {"tasks": ("view", "purchase"), "task_weights": (0.3, 1.7)}

TRIBE_USERS, TRIBE_ITEMS, BASKETS = 24, 12, 30
SHORT = TrainConfig(
    steps=40,
    link_steps=6,
    batch=16,
    link_batch=8,
    candidates=8,
    horizon_days=10,
    first_cut_days=60,
    min_events=5,
    max_events=32,
    learning_rate=1e-2,
)
JUDGED = dataclasses.replace(SHORT, valid_share=0.85, patience=2)  # four users learn, twenty judge


def toy_config(variant: str = "lime-mha", **sizes: Any) -> ModelConfig:
    """Return a config with L=5, D=8, F=7 and E=6, unless sizes say otherwise."""
    defaults = {"links": 5, "width": 8, "hidden": 7, "dot": 6, "heads": 2, "user_width": 4, "max_events": 12}
    return ModelConfig(
        variant=variant,  # type: ignore[arg-type]
        item_columns=(Column("kind"),),
        user_columns=(Column("region"),),
        event_types=("purchase", "view"),
        cutoff_ds="2024-05-01",
        **{**defaults, **sizes},
    )


def toy_model(config: ModelConfig, seed: int = 1) -> LimeModel:
    """Return a model in eval mode whose parameters are all random, so that every branch has an effect."""
    torch.manual_seed(seed)
    model = LimeModel(config, item_rows=ITEMS, item_feature_rows=4, user_feature_rows=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def toy_users(codes: Sequence[int]) -> Features:
    """Return the features of users whose region is null (0), "n" (1) or "s" (2)."""
    return Features(torch.tensor(codes)[:, None], torch.ones(len(codes), 1))


def toy_catalogue() -> tuple[Catalogue, Encoders, Encoders]:
    """Return items "0" to "39", the first 29 with id embeddings, and the encoders of two columns."""
    ids, kinds = [str(i) for i in range(40)], {"kind": Vocabulary(("a", "b", "c"))}
    values = [(None, "a", "b", "c")[i % 4] for i in range(40)]
    catalogue = Catalogue.build(ids, {"kind": values}, kinds, np.arange(40) < ITEMS - 1)
    return catalogue, kinds, {"region": Vocabulary(("n", "s"))}


def toy_bundle(variant: str) -> Bundle:
    """Return a bundle of the random model, without training metrics."""
    catalogue, items, users = toy_catalogue()
    return Bundle(toy_model(toy_config(variant)), catalogue, items, users, {}, "v1")


def two_tribes() -> TrainingData:
    """Return a log in which even users take items 1 to 6 and odd users items 7 to 12, two every fifth day."""
    rng = np.random.default_rng(3)
    item, days = [], []
    for user in range(TRIBE_USERS):
        for basket in range(BASKETS):
            picks = 1 + rng.choice(6, 2, replace=False) + 6 * (user % 2)
            item += picks.tolist()
            days += [-150.0 + 5 * basket] * 2
    size = 2 * BASKETS
    log = EventLog.of(
        np.arange(TRIBE_USERS + 1) * size,
        np.asarray(item, np.int64),
        np.ones(TRIBE_USERS * size, np.int64),
        np.asarray(days),
    )
    ids = [f"{i:02d}" for i in range(TRIBE_ITEMS)]
    catalogue = Catalogue.build(ids, {}, {}, np.ones(TRIBE_ITEMS, np.bool_))
    return TrainingData(log, catalogue, encode_columns({}, {}, TRIBE_USERS), tuple(range(TRIBE_USERS)))


def toy_trainer(
    config: TrainConfig, checkpoints: Checkpoints | None = None, variant: Variant = "lime-mha"
) -> Trainer:
    """Return a trainer of a small model over the two tribes, before its first step."""
    data = two_tribes()
    torch.manual_seed(0)
    sizes = ModelConfig(variant=variant, links=3, width=8, hidden=4, dot=8, user_width=2)
    model = LimeModel(sizes, item_rows=TRIBE_ITEMS + 1, item_feature_rows=0, user_feature_rows=0)
    start_from_svd(model, data, 0)
    return Trainer(model, data, config, checkpoints)


def assert_same_gradients(one: Tensor, other: Tensor, inputs: Sequence[Tensor]) -> None:
    """Compare the gradients of one random weighted sum of both tensors by each of `inputs`.

    An input that one of the tensors does not depend on must not affect the other.
    """
    weights = torch.randn_like(one)
    mine, theirs = (torch.autograd.grad((x * weights).sum(), inputs, allow_unused=True) for x in (one, other))
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
