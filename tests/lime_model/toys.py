"""Small random models and users that several tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lime_model.config import Column, ModelConfig
from lime_model.model.encoders import Vocabulary
from lime_model.model.features import Catalogue, Encoders
from lime_model.model.lime import Features, LimeModel

ITEMS = 30


TWO_TASKS = {"tasks": ("view", "purchase"), "task_weights": (0.3, 1.7)}


def toy_config(variant: str = "lime-mha", **sizes: Any) -> ModelConfig:
    """L=5, D=8, F=7, E=6 unless overridden."""
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
    """Every parameter random, so that no branch is silent."""
    torch.manual_seed(seed)
    model = LimeModel(config, item_rows=ITEMS, item_feature_rows=4, user_feature_rows=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def toy_users(codes: Sequence[int]) -> Features:
    """Users of region null (0), "n" (1) or "s" (2)."""
    return Features(torch.tensor(codes)[:, None], torch.ones(len(codes), 1))


def toy_catalogue() -> tuple[Catalogue, Encoders, Encoders]:
    """Items "0" to "39", the first 29 with ids; one item and one user column."""
    ids, kinds = [str(i) for i in range(40)], {"kind": Vocabulary(("a", "b", "c"))}
    values = [(None, "a", "b", "c")[i % 4] for i in range(40)]
    catalogue = Catalogue.build(ids, {"kind": values}, kinds, np.arange(40) < ITEMS - 1)
    return catalogue, kinds, {"region": Vocabulary(("n", "s"))}


def assert_same_gradients(one: Tensor, other: Tensor, inputs: Sequence[Tensor]) -> None:
    """Of one random weighted sum of both, by each of `inputs`; what one does not read, neither does."""
    weights = torch.randn_like(one)
    mine, theirs = (torch.autograd.grad((x * weights).sum(), inputs, allow_unused=True) for x in (one, other))
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
