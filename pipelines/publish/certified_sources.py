"""Read what the certificate needs from the sources: items and histories, not the bank or the link states.

A proof must not read the tables that it checks. It shares only the bundle with scoring, and how the bundle
encodes ids and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from lime_model.config import DAY_US
from lime_model.measure.certificate import RawHistory
from lime_model.model.features import encode_rows, event_actions
from lime_model.rows.items import ItemEncoder, ItemInputs
from pipelines.build.corpus import CorpusVersions, read_corpus
from pipelines.models.pinned_inputs import NightInputs
from pipelines.schemas import ELIGIBLE, EVENT_TS, HISTORY_ORDER, ITEM_ID, RECENT, USER_ID
from pipelines.settings.night import Policy
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_events
from pipelines.store.frames import sorted_arrow
from pipelines.store.tables import Warehouse

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CertifiedCorpus:
    """All C items of a night, sorted by id.

    `recent` `[C]` has the number of recent events of each item. `eligible` `[C]` says whether the published
    policy may recommend it.
    """

    ids: pa.Array
    items: ItemInputs
    recent: NDArray[np.float64]
    eligible: NDArray[np.bool_]

    @classmethod
    def read(
        cls, warehouse: Warehouse, night: str, inputs: NightInputs, bundle: Bundle, policy: Policy
    ) -> CertifiedCorpus:
        """Read the items of a night.

        Args:
            warehouse: holds events and items.
            night: the date of the night (YYYY-MM-DD).
            inputs: gives the versions of events and items.
            bundle: encodes the items.
            policy: decides which items are eligible.
        """
        versions = CorpusVersions(inputs.events, inputs.items)
        corpus = read_corpus(warehouse, night, versions, [policy], bundle.config.bias_days)
        table = sorted_arrow(corpus, ITEM_ID)
        ids = table[ITEM_ID].combine_chunks()
        columns = {c: table[c].to_pylist() for c in bundle.item_encoders if c in table.column_names}
        items, _ = ItemEncoder(bundle).read(ids.to_pylist(), columns)
        eligible = table[ELIGIBLE].to_numpy() == 1
        return cls(ids, items, table[RECENT].to_numpy().astype(np.float64), eligible)

    def rows(self, items: Any) -> Rows:
        """Find the corpus rows of item ids; the row is -1 for an id that is not in the corpus."""
        array = items if isinstance(items, pa.ChunkedArray) else pa.array(items, self.ids.type)
        found = pc.fill_null(pc.index_in(array, value_set=self.ids), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


class CertifiedHistory(NamedTuple):
    """A user's history, and the corpus rows that the policy excludes."""

    history: RawHistory
    excluded: Rows


class HistorySource:
    """Reads the raw histories of some users.

    Args:
        warehouse: holds events and users.
        night: the date of the night.
        inputs: gives the versions of events and users.
        bundle: encodes actions and user columns.
        corpus: gives the rows of items.
        users: the ids of the users.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        night: str,
        inputs: NightInputs,
        bundle: Bundle,
        corpus: CertifiedCorpus,
        users: Sequence[Any],
    ) -> None:
        self.bundle, self.night = bundle, warehouse.settings.night
        mine = F.col(USER_ID).isin(list(users))
        events = read_events(warehouse, night, inputs.events).where(mine)
        self.events = sorted_arrow(events, USER_ID, *HISTORY_ORDER)
        features = read_entity(warehouse, "users", night, inputs.users).where(mine).collect()
        self.features = {row[USER_ID]: row.asDict() for row in features}
        owner = self.events[USER_ID].to_numpy()
        cuts = [0, *(np.flatnonzero(owner[1:] != owner[:-1]) + 1), len(owner)]
        self.spans = {owner[at]: slice(at, end) for at, end in pairwise(cuts) if end > at}
        ids = self.events[ITEM_ID]
        self.items, self.known = corpus.rows(ids), bundle.catalogue.rows(ids.to_pylist())
        self.cutoff = np.datetime64(bundle.config.cutoff_ds, "us")
        self.night_us = int(np.datetime64(night, "us").astype(np.int64))

    def read(self, user: Any, policy: Policy) -> CertifiedHistory:
        """Read the history of a user, and find the items of it that a policy excludes."""
        span = self.spans.get(user, slice(0, 0))
        mine, items = self.events.slice(span.start, span.stop - span.start), self.items[span]
        us = mine[EVENT_TS].cast(pa.int64()).to_numpy()
        config = self.bundle.config
        values = {k: [v] for k, v in self.features.get(user, {}).items()}
        history = RawHistory(
            items,
            self.known[span],
            event_actions(mine, config),
            (us - int(self.cutoff.astype(np.int64))) / DAY_US,
            encode_rows(values, self.bundle.user_encoders, 1)[0],
        )
        if policy.exclude_seen == "none":
            return CertifiedHistory(history, np.zeros(0, np.int64))
        since = -np.inf if policy.exclude_seen == "all" else self.night_us - int(policy.exclude_seen) * DAY_US
        return CertifiedHistory(history, np.unique(items[us >= since]))
