"""The Complete Journey as a candidate-generation problem: histories before a day, purchases after it.

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


@dataclass(frozen=True, eq=False)  # by identity: what is fitted to one is kept
class Journey:
    """What a model may see, and what it is asked.

    `source` holds everything before the day, and so do `events` and `past [V, I]`, counts of purchases of
    all households; `users [U]` ids of those asked about, `rows [U]` of `past`; `items [I]` ids of all items
    bought or listed, ascending; `before`, `after [U, I]` counts of their purchases.
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
    """Split at `day`: households with `MIN_EVENTS` purchases before it and one in the weeks after it."""
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
    """All purchases in the columns of the events table."""
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
    """Purchases `[U, I]` of these households."""
    known = events[np.isin(events["user_id"], users)]
    entry = (np.searchsorted(users, known["user_id"]), np.searchsorted(items, known["item_id"]))
    shape = (len(users), len(items))
    return sp.csr_array(sp.coo_array((np.ones(len(known), np.float32), entry), shape=shape))
