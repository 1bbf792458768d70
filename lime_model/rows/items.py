"""Items to rows of the bank: id and features go through the tower and are folded, in float64, rounded once.

Letters: n items, P entries of a row's features, L links, F hidden units, E width of the dot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lime_model.arrays import F32, F64, Ints
from lime_model.bundle import Bundle
from lime_model.model.entries import Entries
from lime_model.model.features import encode_rows
from lime_model.scoring.canonical import Weights, sum_entries


class ItemInputs(NamedTuple):
    """What the item tower reads: id rows `[n]` and feature entries `[n, P]`."""

    id_rows: Ints
    features: Entries


class ItemEncoder:
    """Encodes items with one bundle; a worker makes it once.

    An item that training did not know, or that was too rare for an id embedding of its own, is encoded from
    its features. With all features null it gets the factors of the unknown item.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.weights = Weights.of(bundle.model)
        tower = bundle.model.items
        self.ids: F64 = tower.ids.weight.detach().double().numpy()
        self.table: F64 = tower.features.table.weight.detach().double().numpy()

    def read(
        self, item_ids: Sequence[object], columns: Mapping[str, Sequence[object]]
    ) -> tuple[ItemInputs, dict[int, str]]:
        """Read some items from this night's values of their columns.

        Returns:
            What the tower reads, and the faults of unreadable values, which are null, by the item's place.
        """
        catalogue = self.bundle.catalogue
        # The id may be a column too, such as a hash for the items without an id embedding of their own.
        columns = {"item_id": item_ids, **columns}
        features, faults = encode_rows(columns, self.bundle.item_encoders, len(item_ids))
        return ItemInputs(catalogue.id_rows[catalogue.rows(item_ids)], features), faults

    def encode(self, items: ItemInputs) -> tuple[F32, F32, F32]:
        """Compute A `[n, L]`, B `[n, F]` and d `[n, E]`."""
        flat = self.ids[items.id_rows] + sum_entries(self.table, items.features)
        return self.weights.fold_items(self.weights.item_tower(flat))
