"""The reference backend: no filter at all, so every candidate is scored canonically."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lime_model.arrays import F32, Ints
from lime_model.scoring.backend import Backend
from lime_model.scoring.canonical import Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Query


class ReferenceBackend(Backend):
    """The definition that the other backends are tested against."""

    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Return every row outside the user's memory; see `Backend.keep`."""
        everything = np.arange(len(candidates))
        return [np.setdiff1d(everything, user.memory.rows, assume_unique=True) for user in users]
