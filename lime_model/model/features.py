"""Feature columns to entries of one embedding table, and the frozen catalogue of a bundle.

The columns of a side (items, users) share one table, in which each column has a block of rows, in the order
of the settings (`lime_model/model/encoders.py`). Everything is fixed at training time. An item or value that
training did not see maps to rows that were learned, so unseen items and users get a sensible score.

Letters: n rows of a table of data, P entries of a row's features, I items.
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
    """Return the number of rows of the embedding table that all columns of a side share."""
    return sum(encoder.rows for encoder in encoders.values())


def encode_columns(columns: Mapping[str, Sequence[object]], encoders: Encoders, rows: int) -> Entries:
    """Encode columns to entries `[n, P]`, concatenated in the order of `encoders`.

    Args:
        columns: values `[n]` by name; a missing column is all null.
        encoders: encoders by name.
        rows: n.

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
    """Encode what can be read, as `encode_columns` does; other values are null.

    Args:
        columns: values `[n]` by name; a missing column is all null.
        encoders: encoders by name.
        rows: n.

    Returns:
        The entries `[n, P]`, and for each row with an unreadable value the fault, by the row's place.
    """
    parts, first = [Entries(np.zeros((rows, 0), np.int64), np.zeros((rows, 0), np.float32))], 0
    faults: dict[int, str] = {}
    for name, encoder in encoders.items():
        found, unread = _encode_readable(columns.get(name, [None] * rows), encoder)
        parts.append(Entries(first + found.slots, found.weights))
        faults |= {row: f"column {name}: {fault}" for row, fault in unread.items()}
        first += encoder.rows
    return Entries(*(np.concatenate(side, 1) for side in zip(*parts, strict=True))), faults


def _encode_readable(values: Sequence[object], encoder: Encoder) -> tuple[Entries, dict[int, str]]:
    """Encode a column; return its entries, null where a value can't be read, and the faults by place."""
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
    """Encode columns for training: a value that can't be read is null, and the log names such a row.

    Args:
        columns: values `[n]` by name.
        encoders: encoders by name.
        names: what the log calls each row `[n]`.
    """
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
    """Return action codes `[n]` below `config.actions`.

    Args:
        event_type: codes of event types `[n]`, 0 where unknown.
        label: labels `[n]`, NaN for none.
        config: whether labels are shown.
    """
    if not config.labelled:
        return event_type
    shown = np.where(np.isnan(label), 0, 1 + (label > 0))
    return np.where(event_type > 0, 1 + (event_type - 1) * 3 + shown, 0)


def event_actions(events: pa.Table, config: ModelConfig) -> Ints:
    """Return action codes `[n]` of events with `event_type`, and with `label` if the model is shown labels.

    Raises:
        TrainingError: the model is shown labels, and the log has no column of labels.
    """
    kinds = pc.index_in(events["event_type"], value_set=pa.array(config.event_types, pa.string()))
    # A copy, because torch needs writable memory.
    types = np.array(pc.fill_null(kinds, -1).to_numpy(), np.int64) + 1
    return encode_actions(types, read_labels(events), config) if config.labelled else types


def read_labels(events: pa.Table) -> Floats:
    """Return labels `[n]`, NaN for null.

    Raises:
        TrainingError: the log has no column of labels.
    """
    if "label" not in events.column_names:
        raise TrainingError("the log has no label column; give it one, or set model.labelled: false")
    return np.asarray(events["label"].cast(pa.float64()).to_numpy(), np.float64)


@dataclass(frozen=True)
class Catalogue:
    """The items as training knew them; row 0 is shared by all other items.

    `id_rows [I + 1]` is the row of each item's id embedding (0 when the item was too rare to have one),
    `features [I + 1, P]` are its entries, and `fame [I + 1, 3]` says how often it was taken before the
    cut-off (`lime_model.train.event_log.item_fame`). Ids are held as text.
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
        """Build a catalogue of items in any order, with zero fame.

        Args:
            item_ids: `[I]`.
            columns: feature values `[I]` by name.
            encoders: encoders of the columns that the model reads.
            has_id: which items get an id embedding of their own `[I]`.
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
        """Return the catalogue rows of some item ids, 0 where unknown."""
        return np.asarray([self._index.get(str(i), 0) for i in item_ids], np.int64)

    def __post_init__(self) -> None:
        index = {item: row + 1 for row, item in enumerate(self.item_ids)}
        object.__setattr__(self, "_index", index)

    _index: Mapping[str, int] = None  # type: ignore[assignment]  # set in __post_init__
