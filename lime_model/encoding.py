"""Items to bank rows: id and features through the tower, folded, in float64, rounded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lime_model.bundle import Bundle
from lime_model.features import encode_columns
from lime_model.scoring.canonical import F32, F64, Weights


class ItemEncoder:
    """Encodes items with one bundle; made once per worker.

    An item that training did not know, or that was too rare for an id of its own, is
    encoded from its features; with all features null it gets the unknown item's factors.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.weights = Weights.of(bundle.model)
        tower = bundle.model.items
        self.ids: F64 = tower.ids.weight.detach().double().numpy()
        self.tables: list[F64] = [p.detach().double().numpy() for p in tower.features.tables.parameters()]

    def codes(self, item_ids: Sequence[object], columns: Mapping[str, Sequence[object]]) -> NDArray[np.int64]:
        """`[n, 1 + columns]`: id row, then feature codes of tonight's values."""
        features = encode_columns(columns, self.bundle.item_vocabularies, len(item_ids))
        catalogue = self.bundle.catalogue
        rows = catalogue.id_rows[catalogue.rows(item_ids)]
        return np.concatenate([rows[:, None], features], 1)

    def encode(self, codes: NDArray[np.int64]) -> tuple[F32, F32, F32]:
        """A `[n, L]`, B `[n, F]` and d `[n, E]` from `codes`."""
        flat = self.ids[codes[:, 0]].copy()
        for column, table in enumerate(self.tables):
            flat += table[codes[:, 1 + column]]
        return self.weights.fold_items(self.weights.item_tower(flat))
