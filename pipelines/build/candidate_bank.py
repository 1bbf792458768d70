"""The candidate bank: every item of the corpus as factors that no user enters, computed once;
and what moves by date: the night's item bias, and who may be recommended tonight.

The corpus is `items` as the night sees them and every item seen in events before it
(features null). Eligibility is one bit per policy. Only items that are new or whose
features changed are encoded; the bank's other rows stand.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle, BundleError
from pipelines.models.bundles import ship_bundle, shipped_folder
from pipelines.models.pinned_inputs import find_pinned_inputs, warn_of_newer_inputs
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.store.catalogue import read_entity, read_withdrawn
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.predicates import equals
from pipelines.store.row_digests import compute_checksum, compute_fingerprint, patch_rows, sound_fingerprints
from pipelines.store.runs import Manifest, run_once
from pipelines.store.schemas import (
    CHECKSUM,
    CORPUS_FINGERPRINT,
    DS,
    ELIGIBLE,
    FINGERPRINT,
    ITEM_ID,
    MODEL_VERSION,
    RECENT,
    WITHDRAWN,
)
from pipelines.store.tables import Warehouse, count_cases
from pipelines.udfs.encode_items import PASSED, encode_items

MAX_POLICIES = 63  # bits of a long
FACTORS = (ITEM_ID, "link_weights", "head_input", "dot")
MOST_PATCHED = 0.25  # rows changed in place, of those that stand: beyond it the slice is written whole


def build_candidate_bank(
    warehouse: Warehouse, run: Run, model: str, policies: Sequence[Policy], *, version: str | None = None
) -> Manifest:
    """Build bank and bias of the night; the manifest names their Delta versions.

    Args:
        version: the bundle; without one, the champion of the night.

    Raises:
        BundleError: the bundle has seen events of the night or later.
        SettingsError: an eligibility expression does not fit the item columns, or there are
            more than 63 policies.
    """

    def work() -> Manifest:
        if version is None:
            fixed, events = find_pinned_inputs(warehouse, run, model)
        else:
            fixed, events = version, warehouse.version("events")
        bundle = ship_bundle(warehouse, model, fixed)
        if bundle.config.cutoff_ds > run.ds:
            raise BundleError(
                f"bundle {bundle.version} of {model!r} was trained on events before "
                f"{bundle.config.cutoff_ds} and has seen what night {run.ds} is to foretell; promote one "
                "of an earlier cut-off"
            )
        versions = {"events": events, "items": warehouse.newest("items")}
        corpus = read_corpus(
            warehouse, run.ds, (versions["events"], versions["items"]), policies, bundle.config.bias_days
        )
        corpus = corpus.withColumn(CORPUS_FINGERPRINT, _fingerprint(corpus, bundle)).persist()
        counts = corpus.select(
            F.count("*"), *(F.sum(eligible_bit(i, ELIGIBLE)) for i in range(len(policies)))
        ).collect()[0]
        base = warehouse.newest("candidate_bank")
        bank, changes = update_bank(warehouse, corpus, bundle, base)
        bias = warehouse.replace("item_bias", compute_item_bias(corpus, run.ds, bundle), equals(ds=run.ds))
        corpus.unpersist()
        return {
            "model": model,
            "model_version": bundle.version,
            "versions": {**versions, "candidate_bank": bank, "item_bias": bias},
            "candidates": counts[0],
            "base": {"candidate_bank": base},
            **changes,
            "eligible_where": [policy.eligible for policy in policies],
            "eligible": {p.name: counts[1 + i] or 0 for i, p in enumerate(policies)},
        }

    done = run_once(warehouse, run, "build_candidate_bank", work)
    warn_of_newer_inputs(warehouse, run, "build_candidate_bank", done)
    return done


def read_corpus(
    warehouse: Warehouse, night: str, versions: tuple[int, int], policies: Sequence[Policy], days: int
) -> DataFrame:
    """`item_id`, `RECENT` (events of the last `days`), `ELIGIBLE` bits and the item columns.

    An item that the newest drop of a catalogue with `absent: remove` left out is withdrawn: nothing makes it
    eligible, whatever the log holds. `versions` are those of `events` and `items`.
    """
    if len(policies) > MAX_POLICIES:
        raise SettingsError(f"{len(policies)} policies; one bank holds the bits of {MAX_POLICIES}")
    recent = F.col(DS) >= F.date_sub(F.lit(night).cast("date"), days)
    events = read_events(warehouse, night, versions[0])
    seen = events.groupBy(ITEM_ID).agg(F.count(F.when(recent, 1)).alias(RECENT))
    withdrawn = read_withdrawn(warehouse, "items", night, versions[1]).withColumn(WITHDRAWN, F.lit(True))
    corpus = read_entity(warehouse, "items", night, versions[1]).join(seen, ITEM_ID, "full_outer")
    corpus = corpus.join(withdrawn, ITEM_ID, "left")
    corpus = corpus.fillna(0, [RECENT])
    bits = F.lit(0).cast("long")
    for index, policy in enumerate(policies):
        bits = bits.bitwiseOR(F.when(F.expr(policy.eligible), F.lit(1 << index)).otherwise(0).cast("long"))
    bits = F.when(F.col(WITHDRAWN).isNull(), bits).otherwise(F.lit(0).cast("long"))
    try:
        return corpus.withColumn(ELIGIBLE, bits).drop(WITHDRAWN)
    except AnalysisException as error:
        raise SettingsError(
            f"an eligibility expression does not fit the item columns {corpus.columns}: "
            f"{[p.eligible for p in policies]}: {error}"
        ) from error


def update_bank(
    warehouse: Warehouse, corpus: DataFrame, bundle: Bundle, version: int
) -> tuple[int, dict[str, int]]:
    """Make the bundle's slice of the bank hold the corpus; returns its version and what changed.

    `version` is the one to start from, -1 when there is none.

    Counted: items `encoded`, rows `kept`, `removed` and `damaged`. Nothing is written when nothing changed,
    and few changes leave the files of the other rows as they are.

    Raises:
        WriteConflict: as `Warehouse.upsert`.
    """
    stored = warehouse.read("candidate_bank", version).where(F.col(MODEL_VERSION) == bundle.version)
    items = compare_items(corpus, stored).persist()
    tonight, stands = F.col(FINGERPRINT).isNotNull(), F.col("stands")
    cases = {"encoded": tonight & ~stands, "kept": stands, "removed": ~tonight, "damaged": F.col("damaged")}
    changes = count_cases(items, cases)
    changed = changes["encoded"] + changes["removed"]
    if version < 0 or changed:
        standing = items.where("stands").select(ITEM_ID)
        fresh = corpus.join(standing, ITEM_ID, "left_anti") if changes["kept"] else corpus
        rows = encode_corpus(fresh, bundle, strict=warehouse.settings.night.strict)
        if version < 0 or changes["damaged"] or changed > MOST_PATCHED * changes["kept"]:
            rows = rows.unionByName(stored.join(standing, ITEM_ID, "left_semi"))
            version = warehouse.replace("candidate_bank", rows, equals(model_version=bundle.version))
        else:
            gone = items.where(~tonight).select(ITEM_ID)
            version = patch_rows(warehouse, "candidate_bank", rows, gone, ITEM_ID, bundle.version, version)
    items.unpersist()
    return version, changes


def compare_items(corpus: DataFrame, stored: DataFrame) -> DataFrame:
    """Every item of tonight or of the stored rows: `item_id, fingerprint, stands, damaged`.

    Without a fingerprint the item is no candidate tonight. `stands`: its row was computed from the
    same features, and holds what was computed. `damaged`: it does not, or the item has several.
    """
    there = F.least(*(F.length(name) for name in FACTORS[1:])) > 0  # empty: it could not be computed
    old = sound_fingerprints(stored.where(there), ITEM_ID, FACTORS, "was")
    old = old.withColumn("damaged", F.col("was").isNull())
    both = corpus.select(ITEM_ID, F.col(CORPUS_FINGERPRINT).alias(FINGERPRINT)).join(
        old, ITEM_ID, "full_outer"
    )
    stands = F.coalesce(F.col("was") == F.col(FINGERPRINT), F.lit(False)).alias("stands")
    return both.select(ITEM_ID, FINGERPRINT, stands, F.coalesce("damaged", F.lit(False)).alias("damaged"))


def encode_corpus(corpus: DataFrame, bundle: Bundle, *, strict: bool) -> DataFrame:
    """Bank rows by `mapInArrow`; `strict` as of `encode_items`."""

    def encode(batches):  # type: ignore[no-untyped-def]  # Spark wants a one-argument function
        yield from encode_items(batches, shipped_folder(bundle.version), strict=strict)

    item = corpus.schema[ITEM_ID].dataType.simpleString()
    factors = "link_weights binary, head_input binary, dot binary"
    schema = f"item_id {item}, {CORPUS_FINGERPRINT} string, {factors}"
    encoded = corpus.select(*PASSED, *_features(corpus, bundle)).mapInArrow(encode, schema)
    encoded = encoded.withColumnRenamed(CORPUS_FINGERPRINT, FINGERPRINT)
    return encoded.withColumns({MODEL_VERSION: F.lit(bundle.version), CHECKSUM: compute_checksum(FACTORS)})


def _features(corpus: DataFrame, bundle: Bundle) -> list[Column]:
    """The bundle's item columns; null where the night has no such column."""
    return [
        F.col(name) if name in corpus.columns else F.lit(None).cast("string").alias(name)
        for name in bundle.item_encoders
        if name != ITEM_ID
    ]


def _fingerprint(corpus: DataFrame, bundle: Bundle) -> Column:
    """Of what an item's factors depend on, beside the bundle and the id."""
    return compute_fingerprint(*_features(corpus, bundle))


def compute_item_bias(corpus: DataFrame, night: str, bundle: Bundle) -> DataFrame:
    """β_c = weight × log1p(events of the item in the last `bias_days` before the night); eligibility bits."""
    weight = F.lit(float(bundle.model.bias_weight.detach()))
    return corpus.select(
        F.lit(night).alias(DS),
        ITEM_ID,
        F.lit(bundle.version).alias(MODEL_VERSION),
        F.col(RECENT).alias("recent_count"),
        (weight * F.log1p(F.col(RECENT).cast("double"))).cast("float").alias("bias"),
        F.col(ELIGIBLE).alias("eligible"),
    )


def eligible_bit(index: int, bits: str = "eligible") -> Column:
    """1 where the policy at `index` may recommend the item."""
    return F.shiftright(F.col(bits), index).bitwiseAND(F.lit(1))
