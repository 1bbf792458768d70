"""Arrow tables of events, items and users to what the trainer reads.

Letters: U users, n events, I items.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lime_model.config import DAY_US, ModelConfig, Vocabulary
from lime_model.examples import EventLog, TrainingData, item_counts, item_fame
from lime_model.features import Catalogue, build_vocabulary, encode_actions, encode_columns

MIN_VALUE_COUNT = 3  # rows that a category value needs for an embedding of its own


def build_vocabularies(
    table: pa.Table, columns: tuple[str, ...], *, at_least: int = 1
) -> Mapping[str, Vocabulary]:
    """One vocabulary per column; a column the table lacks is all unknown."""
    return {
        c: build_vocabulary(table[c], at_least=at_least) if c in table.column_names else Vocabulary(())
        for c in columns
    }


def build_catalogue(
    items: pa.Table, events: pa.Table, vocabularies: Mapping[str, Vocabulary], min_buyers: int
) -> Catalogue:
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
        for c in vocabularies
        if c in items.column_names
    }
    codes = encode_columns(columns, vocabularies, len(ids))
    return Catalogue.build(ids, codes, np.asarray([buyers.get(i, 0) >= min_buyers for i in ids], np.bool_))


def build_training_data(
    events: pa.Table,
    users: pa.Table,
    catalogue: Catalogue,
    vocabularies: Mapping[str, Vocabulary],
    config: ModelConfig,
) -> TrainingData:
    """Arrays for the trainer; its catalogue knows how often items were taken.

    Args:
        events: `user_id, item_id, event_ts, event_type, session_id` sorted by user, then in
            history order; all before `config.cutoff_ds`.
        users: `user_id` and feature columns; may lack users of the log.

    Raises:
        ValueError: there are no events, or one is not before the cut-off.
    """
    if events.num_rows == 0:
        raise ValueError(f"there are no events before {config.cutoff_ds}; nothing can be learned")
    owner = events["user_id"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    us = pc.cast(events["event_ts"], pa.int64()).to_numpy()
    days = (us - int(np.datetime64(config.cutoff_ds, "us").astype(np.int64))) / DAY_US
    if days.max() >= 0:
        raise ValueError(
            f"an event lies {days.max():.3f} days after the cut-off {config.cutoff_ds}; it would leak"
        )
    kinds = pc.index_in(events["event_type"], value_set=pa.array(config.event_types, pa.string()))
    types = np.asarray(pc.fill_null(kinds, -1).to_numpy(), np.int64) + 1
    log = EventLog(
        offsets=np.concatenate([starts, [len(owner)]]).astype(np.int64),
        item=catalogue.rows(events["item_id"].to_pylist()),
        event_type=encode_actions(types, read_labels(events), config) if config.labelled else types,
        days=days,
        session_start=_session_starts(owner, events["session_id"], days),
    )
    counts = item_counts(log, 0.0, config.bias_days, len(catalogue.id_rows))
    catalogue = dataclasses.replace(catalogue, fame=item_fame(counts))
    return TrainingData(log, catalogue, _user_codes(owner[starts], users, vocabularies))


def read_labels(events: pa.Table) -> NDArray[np.float64]:
    """Labels `[n]`, NaN where null.

    Raises:
        ValueError: the log has no column of labels.
    """
    if "label" not in events.column_names:
        raise ValueError("the log has no label column; give it one, or set model.labelled: false")
    return np.asarray(events["label"].cast(pa.float64()).to_numpy(), np.float64)


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


def _user_codes(
    user_ids: NDArray[np.generic], users: pa.Table, vocabularies: Mapping[str, Vocabulary]
) -> NDArray[np.int64]:
    """Feature codes `[U, columns]` in the order of the log; a user the table lacks is all unknown."""
    columns = {c: users[c].to_pylist() for c in vocabularies if c in users.column_names}
    codes = np.concatenate(
        [np.zeros((1, len(vocabularies)), np.int64), encode_columns(columns, vocabularies, users.num_rows)]
    )
    place = {user: row + 1 for row, user in enumerate(users["user_id"].to_pylist())}
    return codes[[place.get(user, 0) for user in user_ids.tolist()]]
