"""Columns to codes: vocabularies and the frozen catalogue of a bundle.

Everything is fixed at training time. An item or value not seen then maps to 0, whose
embedding is learned, so unseen items and users get a sensible score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lime_model.config import ModelConfig, Vocabulary

Codes = NDArray[np.int64]


def build_vocabulary(column: pa.ChunkedArray, *, at_least: int = 1) -> Vocabulary:
    """Values of a categorical column that occur `at_least` times, sorted."""
    counts = pc.value_counts(column.cast(pa.string()).drop_null())
    kept = [row["values"] for row in counts.to_pylist() if row["counts"] >= at_least]
    return Vocabulary(tuple(sorted(kept)))


def encode_columns(
    columns: Mapping[str, Sequence[object]], vocabularies: Mapping[str, Vocabulary], rows: int
) -> Codes:
    """Codes `[rows, columns]` in the order of `vocabularies`; a missing column is all null."""
    codes = np.zeros((rows, len(vocabularies)), np.int64)
    for position, (name, vocabulary) in enumerate(vocabularies.items()):
        values = columns.get(name, [None] * rows)
        codes[:, position] = [vocabulary.code(None if v is None else str(v)) for v in values]
    return codes


def encode_actions(event_type: Codes, label: NDArray[np.float64], config: ModelConfig) -> Codes:
    """Action codes `[n]` of event type codes (0 unknown) and labels (NaN: none); `config.actions` of them."""
    if not config.labelled:
        return event_type
    shown = np.where(np.isnan(label), 0, 1 + (label > 0))
    return np.where(event_type > 0, 1 + (event_type - 1) * 3 + shown, 0)


@dataclass(frozen=True)
class Catalogue:
    """The items as training knew them; row 0 is every item it did not know.

    `id_rows [I + 1]` is the id embedding of a row (0 where the item was too rare to
    have one), `codes [I + 1, columns]` its features, `fame [I + 1, 3]` how often it was taken before the
    cut-off (`examples.item_fame`). Ids are held as text.
    """

    item_ids: tuple[str, ...]
    id_rows: Codes
    codes: Codes
    fame: NDArray[np.float32]

    @classmethod
    def build(cls, item_ids: Sequence[str], codes: Codes, has_id: NDArray[np.bool_]) -> Catalogue:
        """From items in any order, none taken yet; `has_id [I]`: which get an embedding of their own."""
        order = sorted(range(len(item_ids)), key=item_ids.__getitem__)
        flags = has_id[order]
        id_rows = np.where(flags, np.cumsum(flags), 0)
        return cls(
            tuple(item_ids[i] for i in order),
            np.concatenate([[0], id_rows]).astype(np.int64),
            np.concatenate([np.zeros((1, codes.shape[1]), np.int64), codes[order]]),
            np.zeros((len(order) + 1, 3), np.float32),
        )

    def rows(self, item_ids: Iterable[object]) -> Codes:
        """Catalogue rows of `item_ids`, 0 where unknown."""
        return np.asarray([self._index.get(str(i), 0) for i in item_ids], np.int64)

    def __post_init__(self) -> None:
        index = {item: row + 1 for row, item in enumerate(self.item_ids)}
        object.__setattr__(self, "_index", index)

    _index: Mapping[str, int] = None  # type: ignore[assignment]  # set in __post_init__
