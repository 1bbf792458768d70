"""Training from the warehouse: everything before a cut-off, into bundles on storage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import torch

from lime_model.bundle import Bundle, build_model, load_bundle, save_bundle
from lime_model.dataset import MIN_VALUE_COUNT, build_catalogue, build_training_data, build_vocabularies
from lime_model.recipe import recipe_digest
from lime_model.training import Trainer, start_from_svd
from pipelines.bundles import bundle_uri, fetch_folder, store_folder, stored_version
from pipelines.catalogue import read_entity
from pipelines.columns import HISTORY_ORDER, ITEM_ID, USER_ID
from pipelines.events import read_events
from pipelines.runs import Manifest
from pipelines.settings import ModelSettings
from pipelines.tables import Warehouse


def train_models(warehouse: Warehouse, cutoff: str, names: list[str]) -> Manifest:
    """Train each named model on the events before `cutoff`; an unchanged bundle is kept.

    A bundle is unchanged when the same settings meet the same rows: it says what it was
    trained from.
    """
    return {name: train_model(warehouse, warehouse.settings.model(name), cutoff) for name in names}


def train_model(warehouse: Warehouse, settings: ModelSettings, cutoff: str) -> Manifest:
    """Train one model and store its bundle; returns its version and metrics."""
    events_version = warehouse.version("events")
    events = read_events(warehouse, cutoff, events_version).select(USER_ID, *HISTORY_ORDER)
    table = events.orderBy(USER_ID, *HISTORY_ORDER).toArrow()
    items = read_entity(warehouse, "items", cutoff).orderBy(ITEM_ID).toArrow()
    users = read_entity(warehouse, "users", cutoff).orderBy(USER_ID).toArrow()
    source = _fingerprint(settings, cutoff, table, items, users)
    uri = bundle_uri(warehouse, settings.name)
    kept = _unchanged(warehouse, uri, source)
    if kept is not None:
        return kept
    config = dataclasses.replace(settings.config, cutoff_ds=cutoff)
    item_words = build_vocabularies(items, config.item_columns, at_least=MIN_VALUE_COUNT)
    user_words = build_vocabularies(users, config.user_columns)
    catalogue = build_catalogue(items, table, item_words, settings.min_buyers)
    data = build_training_data(table, users, catalogue, user_words, config)
    torch.manual_seed(settings.train.seed)
    model = build_model(config, catalogue, item_words, user_words)
    start_from_svd(model, data, settings.train.seed)
    started = time.monotonic()
    curve = Trainer(model, data, settings.train).fit()
    metrics = {"source": source, "seconds": round(time.monotonic() - started, 1), "curve": curve}
    version = _store(warehouse, Bundle(model, catalogue, item_words, user_words, metrics, ""), uri)
    return {"model_version": version, "reused": False, "events": table.num_rows, **metrics}


def _unchanged(warehouse: Warehouse, uri: str, source: str) -> Manifest | None:
    """The manifest of the stored bundle when it was trained from the same."""
    if stored_version(warehouse.spark, uri) is None:
        return None
    bundle = load_bundle(fetch_folder(warehouse.spark, uri))
    if bundle.metrics.get("source") != source:
        return None
    return {"model_version": bundle.version, "reused": True, **bundle.metrics}


def _store(warehouse: Warehouse, bundle: Bundle, uri: str) -> str:
    with tempfile.TemporaryDirectory(prefix="lime-") as folder:
        local = Path(folder) / "bundle"
        version = save_bundle(bundle, local)
        store_folder(warehouse.spark, local, uri)
    return version


def _fingerprint(settings: ModelSettings, cutoff: str, *tables: pa.Table) -> str:
    """Of the settings, the training recipe, torch and the rows themselves."""
    described = [settings.model_dump(mode="json"), cutoff, torch.__version__, recipe_digest()]
    digest = hashlib.sha256(json.dumps(described).encode())
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()[:16]
