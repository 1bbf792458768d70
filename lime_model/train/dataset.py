"""Arrow tables of events, items and users to the arrays that training reads.

Letters: U users, n events of the log, I items.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lime_model.arrays import Floats, Ints
from lime_model.config import DAY_US, Column, ModelConfig
from lime_model.errors import TrainingError
from lime_model.model.encoders import fit_encoder
from lime_model.model.entries import Entries
from lime_model.model.features import Catalogue, Encoders, encode_known, event_actions, read_labels
from lime_model.train.event_log import EventLog, TrainingData, item_counts, item_fame
from lime_model.train.mapped_log import Pieces, map_arrays

MIN_VALUE_COUNT = 3  # rows that a category value needs for an embedding of its own


def fit_encoders(table: pa.Table, columns: tuple[Column, ...], *, at_least: int = 1) -> Encoders:
    """Fit one encoder for each column; a column that the table lacks is all null.

    Args:
        table: the rows of training.
        columns: names, kinds and sizes.
        at_least: how often a category must occur to get a row.

    Raises:
        FeatureError: a value is not what its column's kind reads, naming the column.
    """
    return {
        c.name: fit_encoder(
            c, table[c.name].to_pylist() if c.name in table.column_names else (), at_least=at_least
        )
        for c in columns
    }


def build_catalogue(items: pa.Table, events: Pieces, encoders: Encoders, min_buyers: int) -> Catalogue:
    """Build the catalogue of listed items and of items that occur in events.

    Args:
        items: `item_id` and feature columns.
        events: the log, in pieces of whole users.
        encoders: encoders of the item columns.
        min_buyers: users who must have taken an item for it to get an id embedding of its own.
    """
    listed = pc.cast(items["item_id"], pa.string()).to_pylist()
    buyers: Counter[str] = Counter()
    for piece in events():  # pieces hold whole users, so no pair of user and item is in two of them
        pairs = piece.group_by(["user_id", "item_id"]).aggregate([])
        for found in pc.value_counts(pc.cast(pairs["item_id"], pa.string())).to_pylist():
            buyers[found["values"]] += found["counts"]
    ids = listed + sorted(buyers.keys() - set(listed))
    columns = {
        c: items[c].to_pylist() + [None] * (len(ids) - len(listed))
        for c in encoders
        if c in items.column_names
    }
    columns["item_id"] = ids
    has_id = np.asarray([buyers[i] >= min_buyers for i in ids], np.bool_)
    return Catalogue.build(ids, columns, encoders, has_id)


def build_training_data(
    events: Pieces,
    users: pa.Table,
    catalogue: Catalogue,
    encoders: Encoders,
    config: ModelConfig,
) -> TrainingData:
    """Build the arrays of training; those of the log are mapped from disk.

    Args:
        events: `user_id, item_id, event_ts, event_type, session_id` and `label`, if any, sorted by user,
            then in history order; all before `config.cutoff_ds`.
        users: `user_id` and feature columns; may lack users of the log.
        catalogue: the items; the result holds a copy with the `fame` of this log.
        encoders: encoders of the user columns.
        config: event types, labels and the cut-off.

    Raises:
        TrainingError: there are no events, or one is not before the cut-off.
    """
    owners: list[NDArray[np.generic]] = []
    sizes: list[Ints] = []

    def encode() -> Iterator[dict[str, NDArray[Any]]]:
        for piece in events():
            owner = piece["user_id"].to_numpy()
            starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
            owners.append(owner[starts])
            sizes.append(np.diff(np.append(starts, len(owner))))
            yield _encode(piece, owner, catalogue, config)

    arrays = map_arrays(encode())
    if not owners:
        raise TrainingError(f"there are no events before {config.cutoff_ds}; nothing can be learned")
    log = EventLog(np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64), **arrays)
    if config.labelled and not log.event_type.any():
        raise TrainingError(
            f"no event has a type of model.event_types {list(config.event_types)}, so no label would be "
            "shown; name the log's types there, or the type of a log without any in ingest.default_event_type"
        )
    counts = item_counts(log, 0.0, config.bias_days, len(catalogue.id_rows))
    catalogue = dataclasses.replace(catalogue, fame=item_fame(counts))
    ids = np.concatenate(owners)
    return TrainingData(log, catalogue, _user_features(ids, users, encoders), tuple(ids.tolist()))


def _encode(
    piece: pa.Table, owner: NDArray[np.generic], catalogue: Catalogue, config: ModelConfig
) -> dict[str, NDArray[Any]]:
    """Encode the events of some whole users to the arrays of an `EventLog`."""
    us = pc.cast(piece["event_ts"], pa.int64()).to_numpy()
    days = (us - int(np.datetime64(config.cutoff_ds, "us").astype(np.int64))) / DAY_US
    if days.max() >= 0:
        raise TrainingError(
            f"an event lies {days.max():.3f} days after the cut-off {config.cutoff_ds}; it would leak"
        )
    known = "label" in piece.column_names
    return {
        "item": catalogue.rows(piece["item_id"].to_pylist()),
        "event_type": event_actions(piece, config),
        "days": days,
        "session_start": _session_starts(owner, piece["session_id"], days),
        "label": read_labels(piece) if known else np.full(len(us), np.nan),
    }


def _session_starts(owner: NDArray[np.generic], sessions: pa.ChunkedArray, days: Floats) -> Floats:
    """Return when the session of each event began `[n]`; an event without a session is its own."""
    codes = pc.dictionary_encode(sessions).combine_chunks().indices.to_numpy(zero_copy_only=False)
    _, users = np.unique(owner, return_inverse=True)
    _, group = np.unique(users.astype(np.int64) * (int(codes.max()) + 1) + codes, return_inverse=True)
    first = np.full(group.max() + 1, np.inf)
    np.minimum.at(first, group, days)
    unnamed = pc.equal(sessions, "").to_numpy()
    return np.where(unnamed, days, first[group])


def _user_features(user_ids: NDArray[np.generic], users: pa.Table, encoders: Encoders) -> Entries:
    """Encode the features `[U]` of the log's users in order; a user whom the table lacks is all null."""
    columns = {c: [None, *users[c].to_pylist()] for c in encoders if c in users.column_names}
    names = [None, *users["user_id"].to_pylist()]
    known = encode_known(columns, encoders, names)
    place = {user: row for row, user in enumerate(names)}
    rows = np.array([place.get(user, 0) for user in user_ids.tolist()], np.int64)
    return Entries(known.slots[rows], known.weights[rows])
