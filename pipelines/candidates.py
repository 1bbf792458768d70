"""The candidate bank: every item of the corpus as factors that no user enters, computed once;
and the night's item bias, the only term that moves by date.

The corpus is `items` as the night sees them and every item seen in events before it
(features null). Eligibility is one bit per policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from pipelines.bundles import ship_bundle, shipped_folder
from pipelines.catalogue import read_entity
from pipelines.columns import DS, ITEM_ID, MODEL_VERSION
from pipelines.events import read_events
from pipelines.leases import Run
from pipelines.runs import Manifest, once
from pipelines.settings import Policy, SettingsError
from pipelines.tables import Warehouse
from pipelines.udfs.encode_items import encode_items

MAX_POLICIES = 63  # bits of a long


def build_candidate_bank(warehouse: Warehouse, run: Run, model: str, policies: Sequence[Policy]) -> Manifest:
    """Build bank and bias of the night; the manifest names their Delta versions.

    Raises:
        SettingsError: an eligibility expression does not fit the item columns, or there are
            more than 63 policies.
    """

    def work() -> Manifest:
        bundle = ship_bundle(warehouse, model)
        events_version = warehouse.version("events")
        items_version = warehouse.newest("items")
        corpus = read_corpus(
            warehouse, run.ds, (events_version, items_version), policies, bundle.config.bias_days
        ).persist()
        rows = encode_corpus(corpus, bundle)
        where = f"{MODEL_VERSION} = '{bundle.version}'"
        bank = warehouse.replace("candidate_bank", rows, where)
        bias = warehouse.replace("item_bias", compute_item_bias(corpus, run.ds, bundle), f"{DS} = '{run.ds}'")
        counts = corpus.select(
            F.count("*"), *(F.sum(eligible_bit(i)) for i in range(len(policies)))
        ).collect()[0]
        corpus.unpersist()
        return {
            "model": model,
            "model_version": bundle.version,
            "versions": {
                "events": events_version,
                "items": items_version,
                "candidate_bank": bank,
                "item_bias": bias,
            },
            "candidates": counts[0],
            "eligible_where": [policy.eligible for policy in policies],
            "eligible": {p.name: counts[1 + i] or 0 for i, p in enumerate(policies)},
        }

    return once(warehouse, run, "build_candidate_bank", work)


def read_corpus(
    warehouse: Warehouse, night: str, versions: tuple[int, int], policies: Sequence[Policy], days: int
) -> DataFrame:
    """`item_id`, `recent_count` (events of the last `days`), `eligible` bits and the item columns.

    `versions` are those of `events` and `items`.
    """
    if len(policies) > MAX_POLICIES:
        raise SettingsError(f"{len(policies)} policies; one bank holds the bits of {MAX_POLICIES}")
    recent = F.col(DS) >= F.date_sub(F.lit(night).cast("date"), days)
    events = read_events(warehouse, night, versions[0])
    seen = events.groupBy(ITEM_ID).agg(F.count(F.when(recent, 1)).alias("recent_count"))
    corpus = read_entity(warehouse, "items", night, versions[1]).join(seen, ITEM_ID, "full_outer")
    corpus = corpus.fillna(0, ["recent_count"])
    bits = F.lit(0).cast("long")
    for index, policy in enumerate(policies):
        bits = bits.bitwiseOR(F.when(F.expr(policy.eligible), F.lit(1 << index)).otherwise(0).cast("long"))
    try:
        return corpus.withColumn("eligible", bits)
    except AnalysisException as error:
        raise SettingsError(
            f"an eligibility expression does not fit the item columns {corpus.columns}: "
            f"{[p.eligible for p in policies]}: {error}"
        ) from error


def encode_corpus(corpus: DataFrame, bundle: Bundle) -> DataFrame:
    """Bank rows by `mapInArrow`."""
    missing = [c for c in bundle.config.item_columns if c not in corpus.columns]
    columns = [F.lit(None).cast("string").alias(c) if c in missing else c for c in bundle.config.item_columns]

    def encode(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        yield from encode_items(batches, shipped_folder(bundle.version))

    item = corpus.schema[ITEM_ID].dataType.simpleString()
    factors = "link_weights binary, head_input binary, dot binary"
    schema = f"item_id {item}, eligible long, {factors}, fingerprint string"
    encoded = corpus.select(ITEM_ID, "eligible", *columns).mapInArrow(encode, schema)
    return encoded.withColumn(MODEL_VERSION, F.lit(bundle.version))


def compute_item_bias(corpus: DataFrame, night: str, bundle: Bundle) -> DataFrame:
    """β_c = weight × log1p(events of the item in the last `bias_days` before the night)."""
    weight = F.lit(float(bundle.model.bias_weight.detach()))
    return corpus.select(
        F.lit(night).alias(DS),
        ITEM_ID,
        F.lit(bundle.version).alias(MODEL_VERSION),
        "recent_count",
        (weight * F.log1p(F.col("recent_count").cast("double"))).cast("float").alias("bias"),
    )


def eligible_bit(index: int) -> Column:
    """1 where the policy at `index` may recommend the item."""
    return F.shiftright(F.col("eligible"), index).bitwiseAND(F.lit(1))
