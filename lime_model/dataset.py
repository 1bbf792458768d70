"""Arrow tables of events, items and users to what the trainer reads.

Letters: U users, n events, I items.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lime_model.config import DAY_US, Column, ModelConfig
from lime_model.encoders import Entries, fit_encoder
from lime_model.errors import TrainingError
from lime_model.examples import EventLog, TrainingData, item_counts, item_fame
from lime_model.features import Catalogue, Encoders, encode_columns, event_actions

MIN_VALUE_COUNT = 3  # rows that a category value needs for an embedding of its own


def fit_encoders(table: pa.Table, columns: tuple[Column, ...], *, at_least: int = 1) -> Encoders:
    """One encoder per column; a column that the table lacks is all null.

    Raises:
        FeatureError: a value is not what its column's kind reads, naming the column.
    """
    return {
        c.name: fit_encoder(
            c, table[c.name].to_pylist() if c.name in table.column_names else (), at_least=at_least
        )
        for c in columns
    }


def build_catalogue(items: pa.Table, events: pa.Table, encoders: Encoders, min_buyers: int) -> Catalogue:
    """Listed items and items seen in events; those taken by `min_buyers` users get an id of their own."""
    listed = pc.cast(items["item_id"], pa.string()).to_pylist()
    pairs = (
        events.group_by(["user_id", "item_id"])
        .aggregate([])
        .group_by("item_id")
        .aggregate([("user_id", "count")])
    )
    buyers = dict(
        zip(
            pc.cast(pairs["item_id"], pa.string()).to_pylist(),
            pairs["user_id_count"].to_pylist(),
            strict=True,
        )
    )
    ids = listed + sorted(set(buyers) - set(listed))
    columns = {
        c: items[c].to_pylist() + [None] * (len(ids) - len(listed))
        for c in encoders
        if c in items.column_names
    }
    columns["item_id"] = ids
    has_id = np.asarray([buyers.get(i, 0) >= min_buyers for i in ids], np.bool_)
    return Catalogue.build(ids, columns, encoders, has_id)


def build_training_data(
    events: pa.Table,
    users: pa.Table,
    catalogue: Catalogue,
    encoders: Encoders,
    config: ModelConfig,
) -> TrainingData:
    """Arrays for the trainer; its catalogue knows how often items were taken.

    Args:
        events: `user_id, item_id, event_ts, event_type, session_id` sorted by user, then in
            history order; all before `config.cutoff_ds`.
        users: `user_id` and feature columns; may lack users of the log.

    Raises:
        TrainingError: there are no events, or one is not before the cut-off.
    """
    if events.num_rows == 0:
        raise TrainingError(f"there are no events before {config.cutoff_ds}; nothing can be learned")
    owner = events["user_id"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    us = pc.cast(events["event_ts"], pa.int64()).to_numpy()
    days = (us - int(np.datetime64(config.cutoff_ds, "us").astype(np.int64))) / DAY_US
    if days.max() >= 0:
        raise TrainingError(
            f"an event lies {days.max():.3f} days after the cut-off {config.cutoff_ds}; it would leak"
        )
    log = EventLog(
        offsets=np.concatenate([starts, [len(owner)]]).astype(np.int64),
        item=catalogue.rows(events["item_id"].to_pylist()),
        event_type=event_actions(events, config),
        days=days,
        session_start=_session_starts(owner, events["session_id"], days),
    )
    counts = item_counts(log, 0.0, config.bias_days, len(catalogue.id_rows))
    catalogue = dataclasses.replace(catalogue, fame=item_fame(counts))
    return TrainingData(log, catalogue, _user_features(owner[starts], users, encoders))


def _session_starts(
    owner: NDArray[np.generic], sessions: pa.ChunkedArray, days: NDArray[np.float64]
) -> NDArray[np.float64]:
    """When the session of each event began; without a session, the event itself."""
    codes = pc.dictionary_encode(sessions).combine_chunks().indices.to_numpy(zero_copy_only=False)
    _, users = np.unique(owner, return_inverse=True)
    _, group = np.unique(users.astype(np.int64) * (int(codes.max()) + 1) + codes, return_inverse=True)
    first = np.full(group.max() + 1, np.inf)
    np.minimum.at(first, group, days)
    unnamed = pc.equal(sessions, "").to_numpy()
    return np.where(unnamed, days, first[group])


def _user_features(user_ids: NDArray[np.generic], users: pa.Table, encoders: Encoders) -> Entries:
    """Features `[U]` in the order of the log; those of a user the table lacks are all null."""
    columns = {c: [None, *users[c].to_pylist()] for c in encoders if c in users.column_names}
    known = encode_columns(columns, encoders, users.num_rows + 1)
    place = {user: row for row, user in enumerate(users["user_id"].to_pylist(), 1)}
    rows = np.array([place.get(user, 0) for user in user_ids.tolist()], np.int64)
    return Entries(known.slots[rows], known.weights[rows])
