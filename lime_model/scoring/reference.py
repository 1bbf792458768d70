"""The reference backend: no filter at all. Every candidate is scored canonically."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lime_model.scoring.canonical import F32, Rows, Weights
from lime_model.scoring.topk import Ints, Query


def keep_all(
    weights: Weights, users: Sequence[Query], candidates: Rows, seeds: Sequence[F32], k: int
) -> list[Ints]:
    """Every row outside the user's memory."""
    everything = np.arange(len(candidates.beta))
    return [np.setdiff1d(everything, user.memory.rows, assume_unique=True) for user in users]
