"""Small random models and users that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lime_model.config import ModelConfig, Vocabulary
from lime_model.features import Catalogue
from lime_model.model import LimeModel

ITEMS = 30


TWO_TASKS = {"tasks": ("view", "purchase"), "task_weights": (0.3, 1.7)}


def toy_config(variant: str = "lime-mha", **sizes: Any) -> ModelConfig:
    """L=5, D=8, F=7, E=6 unless overridden."""
    defaults = {"links": 5, "width": 8, "hidden": 7, "dot": 6, "heads": 2, "user_width": 4, "max_events": 12}
    return ModelConfig(
        variant=variant,  # type: ignore[arg-type]
        item_columns=("kind",),
        user_columns=("region",),
        event_types=("purchase", "view"),
        cutoff_ds="2024-05-01",
        **{**defaults, **sizes},
    )


def toy_model(config: ModelConfig, seed: int = 1) -> LimeModel:
    """Every parameter random, so that no branch is silent."""
    torch.manual_seed(seed)
    model = LimeModel(config, item_rows=ITEMS, item_sizes=[4], user_sizes=[3])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def toy_catalogue() -> tuple[Catalogue, dict[str, Vocabulary], dict[str, Vocabulary]]:
    """Items "0" to "39", the first 29 with ids; one item and one user column."""
    ids = [str(i) for i in range(40)]
    codes = np.asarray([[i % 4] for i in range(40)], np.int64)
    catalogue = Catalogue.build(ids, codes, np.arange(40) < ITEMS - 1)
    return catalogue, {"kind": Vocabulary(("a", "b", "c"))}, {"region": Vocabulary(("n", "s"))}
