"""Build the candidate bank: the factors of every item, which depend on no user and are computed once.

What depends on the date is in `item_bias`: the night's bias of each item, and which policies may recommend
it. Only items that are new or whose features changed are encoded; the other rows of the bank are reused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import Bundle, BundleError
from pipelines.build.corpus import CorpusVersions, compute_item_bias, read_corpus
from pipelines.models.bundles import ship_bundle, shipped_folder
from pipelines.models.pinned_inputs import find_pinned_inputs, warn_of_newer_inputs
from pipelines.policies.sql import eligible_bit
from pipelines.schemas import (
    BANK_FACTORS,
    CHECKSUM,
    CORPUS_FINGERPRINT,
    ELIGIBLE,
    FINGERPRINT,
    ITEM_ID,
    MODEL_VERSION,
    ddl_of,
)
from pipelines.settings.night import Policy
from pipelines.store.frames import count_cases, persisted
from pipelines.store.leases import Run
from pipelines.store.manifests import BankManifest
from pipelines.store.predicates import equals
from pipelines.store.row_digests import (
    ModelSlice,
    compute_checksum,
    compute_fingerprint,
    patch_rows,
    sound_fingerprints,
)
from pipelines.store.runs import run_once
from pipelines.store.tables import Warehouse
from pipelines.udfs.encode_items import PASSED, encode_items

log = logging.getLogger(__name__)

TABLE = "candidate_bank"
# A table is patched in place while the changed rows are at most this share of the reusable ones.
MOST_PATCHED = 0.25


def build_candidate_bank(
    warehouse: Warehouse, run: Run, model: str, policies: Sequence[Policy], *, version: str | None = None
) -> BankManifest:
    """Build the bank and the item bias of a night; the manifest names their Delta versions.

    Args:
        warehouse: holds the tables.
        run: the run of the night.
        model: name of the model.
        policies: the policies whose rules decide which items are eligible.
        version: the version of the bundle to use; by default the champion of the night.

    Raises:
        BundleError: the bundle has seen events of the night or later.
        SettingsError: an eligibility rule does not fit the items; see `read_corpus`.
    """

    def work() -> BankManifest:
        if version is None:
            pinned = find_pinned_inputs(warehouse, run, model)
            chosen, events = pinned.model_version, pinned.events
        else:
            chosen, events = version, warehouse.version("events")
        bundle = ship_bundle(warehouse, model, chosen)
        _check_cutoff(bundle, model, run.ds)
        versions = CorpusVersions(events, warehouse.newest("items"))
        corpus = read_corpus(warehouse, run.ds, versions, policies, bundle.config.bias_days)
        base = warehouse.newest(TABLE)
        with persisted(corpus.withColumn(CORPUS_FINGERPRINT, _fingerprint(corpus, bundle))) as rows:
            counts = _count_corpus(rows, policies)
            update = update_bank(warehouse, rows, bundle, base)
            bias = warehouse.replace("item_bias", compute_item_bias(rows, run.ds, bundle), equals(ds=run.ds))
        return BankManifest(
            model=model,
            model_version=bundle.version,
            versions={**versions._asdict(), TABLE: update.version, "item_bias": bias},
            candidates=counts["candidates"],
            base={TABLE: base},
            eligible_where=[policy.eligible for policy in policies],
            eligible={policy.name: counts[policy.name] for policy in policies},
            **update.changes._asdict(),
        )

    done = run_once(warehouse, run, BankManifest, work)
    warn_of_newer_inputs(warehouse, run, done)
    return done


def _check_cutoff(bundle: Bundle, model: str, night: str) -> None:
    """Refuse a bundle that was trained on events that the night is to predict.

    Raises:
        BundleError: the bundle was; the message names it and its cut-off.
    """
    if bundle.config.cutoff_ds > night:
        raise BundleError(
            f"bundle {bundle.version} of {model!r} was trained on events before "
            f"{bundle.config.cutoff_ds} and has seen what night {night} is to predict; promote one "
            "of an earlier cut-off"
        )


def _count_corpus(corpus: DataFrame, policies: Sequence[Policy]) -> dict[str, int]:
    """Count the items of the corpus (`candidates`) and the eligible ones of each policy by its name."""
    bits = {policy.name: eligible_bit(i, ELIGIBLE) for i, policy in enumerate(policies)}
    return {**count_cases(corpus, bits), "candidates": corpus.count()}


class BankChanges(NamedTuple):
    """How many items were encoded, and how many stored rows were kept, removed and damaged."""

    encoded: int
    changed: int  # those of the encoded items that some policy may recommend
    kept: int
    removed: int
    damaged: int


class BankUpdate(NamedTuple):
    """The version of the bank that holds the corpus, and how many rows changed."""

    version: int
    changes: BankChanges


def update_bank(warehouse: Warehouse, corpus: DataFrame, bundle: Bundle, version: int) -> BankUpdate:
    """Make the bundle's slice of the bank hold the corpus.

    Nothing is written when nothing changed, and few changes leave the files of the other rows as they are.

    Args:
        warehouse: holds the bank.
        corpus: the result of `read_corpus`, with the column `CORPUS_FINGERPRINT`.
        bundle: encodes the items.
        version: the Delta version of the bank to start from; -1 when there is no table.

    Raises:
        WriteConflict: another writer changed the same rows.
    """
    stored = warehouse.read(TABLE, version).where(F.col(MODEL_VERSION) == bundle.version)
    with persisted(compare_items(corpus, stored)) as items:
        known, current = F.col(FINGERPRINT).isNotNull(), F.col("is_current")
        cases = {
            "encoded": known & ~current,
            "changed": known & ~current & (F.col(ELIGIBLE) != 0),
            "kept": current,
            "removed": ~known,
            "damaged": F.col("damaged"),
        }
        changes = BankChanges(**count_cases(items, cases))
        log.info("%d items are encoded, %d kept", changes.encoded, changes.kept)
        changed = changes.encoded + changes.removed
        if version >= 0 and not changed:
            return BankUpdate(version, changes)
        reusable = items.where("is_current").select(ITEM_ID)
        fresh = corpus.join(reusable, ITEM_ID, "left_anti") if changes.kept else corpus
        rows = encode_corpus(fresh, bundle, strict=warehouse.settings.night.strict)
        if version < 0 or changes.damaged or changed > MOST_PATCHED * changes.kept:
            rows = rows.unionByName(stored.join(reusable, ITEM_ID, "left_semi"))
            version = warehouse.replace(TABLE, rows, equals(model_version=bundle.version))
        else:
            gone = items.where(~known).select(ITEM_ID)
            version = patch_rows(warehouse, ModelSlice(TABLE, ITEM_ID, bundle.version, version), rows, gone)
    return BankUpdate(version, changes)


def compare_items(corpus: DataFrame, stored: DataFrame) -> DataFrame:
    """Compare the corpus with the stored rows of the bank.

    Args:
        corpus: `item_id`, `CORPUS_FINGERPRINT` and `ELIGIBLE`.
        stored: the bundle's rows of the bank.

    Returns:
        A row for each item of either side: `item_id, fingerprint, is_current, damaged` and `ELIGIBLE`. The
        fingerprint and `ELIGIBLE` are null for an item that is not in the corpus. `is_current`: the stored
        row was computed from the same features, and is intact. `damaged`: the stored row is not intact, or
        the item has several rows.
    """
    computed = F.least(*(F.length(name) for name in BANK_FACTORS)) > 0  # an empty blob could not be computed
    old = sound_fingerprints(stored.where(computed), TABLE, ITEM_ID, "was")
    old = old.withColumn("damaged", F.col("was").isNull())
    new = corpus.select(ITEM_ID, F.col(CORPUS_FINGERPRINT).alias(FINGERPRINT), ELIGIBLE)
    both = new.join(old, ITEM_ID, "full_outer")
    current = F.coalesce(F.col("was") == F.col(FINGERPRINT), F.lit(False)).alias("is_current")
    damaged = F.coalesce("damaged", F.lit(False)).alias("damaged")
    return both.select(ITEM_ID, FINGERPRINT, ELIGIBLE, current, damaged)


def encode_corpus(corpus: DataFrame, bundle: Bundle, *, strict: bool) -> DataFrame:
    """Encode items to rows of the bank.

    Args:
        corpus: `PASSED` and the item columns.
        bundle: encodes the items; it must have been shipped to the executors.
        strict: whether an item that can't be encoded fails the job; see `encode_items`.
    """
    version = bundle.version

    def encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from encode_items(batches, shipped_folder(version), strict=strict)

    item = corpus.schema[ITEM_ID].dataType.simpleString()
    factors = ddl_of(TABLE, columns=BANK_FACTORS)
    schema = f"{ITEM_ID} {item}, {CORPUS_FINGERPRINT} string, {factors}"
    encoded = corpus.select(*PASSED, *_features(corpus, bundle)).mapInArrow(encode, schema)
    encoded = encoded.withColumnRenamed(CORPUS_FINGERPRINT, FINGERPRINT)
    return encoded.withColumns({MODEL_VERSION: F.lit(version), CHECKSUM: compute_checksum(TABLE)})


def _features(corpus: DataFrame, bundle: Bundle) -> list[Column]:
    """Select the bundle's item columns; a column that the night does not have is null."""
    return [
        F.col(name) if name in corpus.columns else F.lit(None).cast("string").alias(name)
        for name in bundle.item_encoders
        if name != ITEM_ID
    ]


def _fingerprint(corpus: DataFrame, bundle: Bundle) -> Column:
    """Fingerprint what an item's factors depend on, apart from the bundle and the id."""
    return compute_fingerprint(*_features(corpus, bundle))
