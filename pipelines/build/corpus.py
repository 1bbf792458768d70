"""Read the corpus: every item that a night knows, with what policies and the item bias need.

A night's items are the rows of `items` that are valid on the day before it, plus every item id in earlier
events (those have null features).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.policies.sql import eligibility_bits
from pipelines.schemas import DS, ELIGIBLE, ITEM_ID, MODEL_VERSION, RECENT, WITHDRAWN
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.store.catalogue import read_entity, read_withdrawn
from pipelines.store.event_log import read_events
from pipelines.store.tables import Warehouse

MAX_POLICIES = 63  # bits of a long


class CorpusVersions(NamedTuple):
    """The Delta versions that a corpus is read from."""

    events: int
    items: int  # -1 while there is no table of items


def read_corpus(
    warehouse: Warehouse, night: str, versions: CorpusVersions, policies: Sequence[Policy], bias_days: int
) -> DataFrame:
    """Read all items of a night.

    An item that the newest drop of a catalogue with `absent: remove` left out is withdrawn: no policy may
    recommend it, whatever the log holds.

    Args:
        warehouse: holds events and items.
        night: the date of the night (YYYY-MM-DD).
        versions: the Delta versions of both tables.
        policies: the policies whose rules give the eligibility bits, in this order.
        bias_days: length in days of the window that `RECENT` counts events in.

    Returns:
        `item_id`, `RECENT`, `ELIGIBLE` and the item columns.

    Raises:
        SettingsError: an eligibility rule does not fit the item columns, or there are more than 63 policies.
    """
    if len(policies) > MAX_POLICIES:
        raise SettingsError(f"{len(policies)} policies; one bank holds the bits of {MAX_POLICIES}")
    recent = F.col(DS) >= F.date_sub(F.lit(night).cast("date"), bias_days)
    events = read_events(warehouse, night, versions.events)
    seen = events.groupBy(ITEM_ID).agg(F.count(F.when(recent, 1)).alias(RECENT))
    withdrawn = read_withdrawn(warehouse, "items", night, versions.items).withColumn(WITHDRAWN, F.lit(True))
    corpus = read_entity(warehouse, "items", night, versions.items).join(seen, ITEM_ID, "full_outer")
    corpus = corpus.join(withdrawn, ITEM_ID, "left").fillna(0, [RECENT])
    nothing = F.lit(0).cast("long")
    bits = F.when(
        F.col(WITHDRAWN).isNull(), eligibility_bits([policy.eligible for policy in policies])
    ).otherwise(nothing)
    try:
        return corpus.withColumn(ELIGIBLE, bits).drop(WITHDRAWN)
    except AnalysisException as error:
        raise SettingsError(
            f"an eligibility expression does not fit the item columns {corpus.columns}: "
            f"{[policy.eligible for policy in policies]}: {error}"
        ) from error


def compute_item_bias(corpus: DataFrame, night: str, bundle: Bundle) -> DataFrame:
    """Compute the rows of `item_bias`: β_c = weight × log1p(events of item c in the last `bias_days`).

    Args:
        corpus: the result of `read_corpus`; its column `RECENT` has the numbers of events.
        night: the date of the night (YYYY-MM-DD).
        bundle: gives the weight.

    Returns:
        The columns of `item_bias`, one row for each item.
    """
    weight = F.lit(float(bundle.model.bias_weight.detach()))
    return corpus.select(
        F.lit(night).alias(DS),
        ITEM_ID,
        F.lit(bundle.version).alias(MODEL_VERSION),
        F.col(RECENT).alias("recent_count"),
        (weight * F.log1p(F.col(RECENT).cast("double"))).cast("float").alias("bias"),
        F.col(ELIGIBLE).alias("eligible"),
    )
