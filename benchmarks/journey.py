"""The Complete Journey as a problem of candidate generation: histories before a day, purchases after it.

Letters: U households, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from demo.complete_journey import read
from lime_model.train.fit import TrainingSource
from pipelines.schemas import HISTORY_ORDER, USER_ID

HORIZON_DAYS, MIN_EVENTS = 28, 20

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # compared by identity, so that a fitted model is cached for each object
class Journey:
    """The data that a model may see, and the questions that it is asked.

    Attributes:
        day: the day of the split.
        source: everything before the day, as training reads it.
        events: the purchases before the day.
        users: ids `[U]` of the households asked about, ascending.
        items: ids `[I]` of all items bought or listed, ascending.
        past: counts `[V, I]` of the purchases of all households before the day.
        rows: the row `[U]` of `past` of each household asked about.
        before: counts `[U, I]` of the purchases of the households asked about before the day.
        after: counts `[U, I]` of their purchases in the weeks after it.
    """

    day: str
    source: TrainingSource
    events: pa.Table
    users: Ints
    items: Ints
    past: sp.csr_array
    rows: Ints
    before: sp.csr_array
    after: sp.csr_array


def load(day: str) -> Journey:
    """Split the log at `day`; ask about households with `MIN_EVENTS` purchases before it and one after it."""
    events, products = _events(), read("products").rename(columns={"product_id": "item_id"})
    cut = np.datetime64(day)
    stamp = events["event_ts"].to_numpy()
    past = events[stamp < cut]
    later = events[(stamp >= cut) & (stamp < cut + np.timedelta64(HORIZON_DAYS, "D"))]
    counts = past["user_id"].value_counts()
    users = np.intersect1d(counts.index[counts >= MIN_EVENTS], later["user_id"])
    items = np.union1d(products["item_id"], events["item_id"])
    people = read("demographics").rename(columns={"household_id": "user_id"}).astype({"user_id": "int64"})
    log = pa.Table.from_pandas(past.sort_values([USER_ID, *HISTORY_ORDER]), preserve_index=False)
    source = TrainingSource(
        lambda: iter([log]),
        pa.Table.from_pandas(
            products.sort_values("item_id").astype({"item_id": "int64"}), preserve_index=False
        ),
        pa.Table.from_pandas(people.sort_values("user_id"), preserve_index=False),
    )
    everyone = np.unique(past["user_id"])
    counts_before, after = _counts(past, everyone, items), _counts(later, users, items)
    rows = np.searchsorted(everyone, users)
    return Journey(day, source, log, users, items, counts_before, rows, counts_before[rows], after)


def _events() -> pd.DataFrame:
    """Read all purchases, with the columns of the events table."""
    raw = read("transactions")
    return pd.DataFrame(
        {
            "user_id": raw["household_id"],
            "item_id": raw["product_id"],
            "event_ts": raw["transaction_timestamp"].astype("datetime64[us]"),
            "event_type": "purchase",
            "session_id": raw["basket_id"].astype(str),
        }
    )


def _counts(events: pd.DataFrame, users: Ints, items: Ints) -> sp.csr_array:
    """Count the purchases `[U, I]` of these households."""
    known = events[np.isin(events["user_id"], users)]
    entry = (np.searchsorted(users, known["user_id"]), np.searchsorted(items, known["item_id"]))
    shape = (len(users), len(items))
    return sp.csr_array(sp.coo_array((np.ones(len(known), np.float32), entry), shape=shape))
