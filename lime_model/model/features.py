"""Feature columns to entries of one embedding table, and the frozen catalogue of a bundle.

The columns of a side (items, users) share one table: each has a block of rows, in the order of the
settings (`lime_model/model/encoders.py`). Everything is fixed at training time. An item or value not seen
then maps to rows that were learned, so unseen items and users get a sensible score.

Letters: n rows of a table of data, P entries of a row, I items.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lime_model.arrays import F32, Bools, Floats, Ints
from lime_model.config import ModelConfig
from lime_model.errors import TrainingError
from lime_model.model.encoders import Encoder
from lime_model.model.entries import Entries, FeatureError

log = logging.getLogger(__name__)

Encoders = Mapping[str, Encoder]


def table_rows(encoders: Encoders) -> int:
    """Of the embedding table that all columns of a side share."""
    return sum(encoder.rows for encoder in encoders.values())


def encode_columns(columns: Mapping[str, Sequence[object]], encoders: Encoders, rows: int) -> Entries:
    """Entries `[rows, P]`, the columns' side by side in the order of `encoders`.

    A missing column is all null.

    Raises:
        FeatureError: a value is not what its column's kind reads, naming the column.
    """
    entries, faults = encode_rows(columns, encoders, rows)
    for fault in faults.values():
        raise FeatureError(fault)
    return entries


def encode_rows(
    columns: Mapping[str, Sequence[object]], encoders: Encoders, rows: int
) -> tuple[Entries, dict[int, str]]:
    """`encode_columns` of what can be read: other values are null, faults are told by the row's place."""
    parts, first = [Entries(np.zeros((rows, 0), np.int64), np.zeros((rows, 0), np.float32))], 0
    faults: dict[int, str] = {}
    for name, encoder in encoders.items():
        found, unread = _encode_readable(columns.get(name, [None] * rows), encoder)
        parts.append(Entries(first + found.slots, found.weights))
        faults |= {row: f"column {name}: {fault}" for row, fault in unread.items()}
        first += encoder.rows
    return Entries(*(np.concatenate(side, 1) for side in zip(*parts, strict=True))), faults


def _encode_readable(values: Sequence[object], encoder: Encoder) -> tuple[Entries, dict[int, str]]:
    """Entries of a column, null where a value can't be read, and why."""
    try:
        return encoder.encode(values), {}
    except FeatureError:
        pass
    readable, faults = list(values), {}
    for row, value in enumerate(values):
        try:
            encoder.encode([value])
        except FeatureError as error:
            readable[row], faults[row] = None, str(error)
    return encoder.encode(readable), faults


def encode_known(
    columns: Mapping[str, Sequence[object]], encoders: Encoders, names: Sequence[object]
) -> Entries:
    """`encode_columns` for training: a value that can't be read is null, and said in the log by name."""
    entries, faults = encode_rows(columns, encoders, len(names))
    if faults:
        row, fault = next(iter(faults.items()))
        log.warning(
            "%d rows have a value that can't be read and is null, such as %r: %s",
            len(faults),
            names[row],
            fault,
        )
    return entries


def encode_actions(event_type: Ints, label: Floats, config: ModelConfig) -> Ints:
    """Action codes `[n]` of event type codes (0 unknown) and labels (NaN: none); `config.actions` of them."""
    if not config.labelled:
        return event_type
    shown = np.where(np.isnan(label), 0, 1 + (label > 0))
    return np.where(event_type > 0, 1 + (event_type - 1) * 3 + shown, 0)


def event_actions(events: pa.Table, config: ModelConfig) -> Ints:
    """Action codes `[n]` of events with `event_type`, and `label` where the model is shown labels.

    Raises:
        TrainingError: the model is, and the log has no column of labels.
    """
    kinds = pc.index_in(events["event_type"], value_set=pa.array(config.event_types, pa.string()))
    # A copy: torch wants writable memory.
    types = np.array(pc.fill_null(kinds, -1).to_numpy(), np.int64) + 1
    return encode_actions(types, read_labels(events), config) if config.labelled else types


def read_labels(events: pa.Table) -> Floats:
    """Labels `[n]`, NaN where null.

    Raises:
        TrainingError: the log has no column of labels.
    """
    if "label" not in events.column_names:
        raise TrainingError("the log has no label column; give it one, or set model.labelled: false")
    return np.asarray(events["label"].cast(pa.float64()).to_numpy(), np.float64)


@dataclass(frozen=True)
class Catalogue:
    """The items as training knew them; row 0 is every item it did not know.

    `id_rows [I + 1]` is the id embedding of a row (0 where the item was too rare to
    have one), `features [I + 1, P]` its entries, `fame [I + 1, 3]` how often it was taken before the
    cut-off (`examples.item_fame`). Ids are held as text.
    """

    item_ids: tuple[str, ...]
    id_rows: Ints
    features: Entries
    fame: F32

    @classmethod
    def build(
        cls,
        item_ids: Sequence[str],
        columns: Mapping[str, Sequence[object]],
        encoders: Encoders,
        has_id: Bools,
    ) -> Catalogue:
        """From items in any order, none taken yet.

        Args:
            item_ids: `[I]`.
            columns: feature values `[I]` by name.
            encoders: of the columns that count.
            has_id: which items get an embedding of their own `[I]`.
        """
        order = sorted(range(len(item_ids)), key=item_ids.__getitem__)
        flags = has_id[order]
        id_rows = np.where(flags, np.cumsum(flags), 0)
        values = {name: [None, *(column[i] for i in order)] for name, column in columns.items()}
        return cls(
            tuple(item_ids[i] for i in order),
            np.concatenate([[0], id_rows]).astype(np.int64),
            encode_known(values, encoders, [None, *(item_ids[i] for i in order)]),
            np.zeros((len(order) + 1, 3), np.float32),
        )

    def rows(self, item_ids: Iterable[object]) -> Ints:
        """Catalogue rows of `item_ids`, 0 where unknown."""
        return np.asarray([self._index.get(str(i), 0) for i in item_ids], np.int64)

    def __post_init__(self) -> None:
        index = {item: row + 1 for row, item in enumerate(self.item_ids)}
        object.__setattr__(self, "_index", index)

    _index: Mapping[str, int] = None  # type: ignore[assignment]  # set in __post_init__
