"""Training from the warehouse: everything before a cut-off, into bundles on storage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch

from lime_model.bundle import Bundle, BundleError, build_model, load_bundle, save_bundle
from lime_model.dataset import MIN_VALUE_COUNT, build_catalogue, build_training_data, build_vocabularies
from lime_model.recipe import recipe_digest
from lime_model.training import Trainer, start_from_svd
from pipelines.bundles import bundle_exists, bundle_uri, fetch_folder, store_folder
from pipelines.catalogue import read_entity
from pipelines.columns import HISTORY_ORDER, ITEM_ID, USER_ID
from pipelines.events import read_events
from pipelines.runs import Manifest
from pipelines.settings import ModelSettings
from pipelines.tables import Warehouse, sorted_arrow

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """What models are trained from, as Arrow tables in a stated order."""

    events: pa.Table
    items: pa.Table
    users: pa.Table

    @classmethod
    def read(cls, warehouse: Warehouse, cutoff: str) -> Source:
        """Everything before `cutoff`, read once for all models."""
        events = read_events(warehouse, cutoff, warehouse.version("events")).select(USER_ID, *HISTORY_ORDER)
        return cls(
            sorted_arrow(events, USER_ID, *HISTORY_ORDER),
            sorted_arrow(read_entity(warehouse, "items", cutoff), ITEM_ID),
            sorted_arrow(read_entity(warehouse, "users", cutoff), USER_ID),
        )


def train_models(warehouse: Warehouse, cutoff: str, names: list[str]) -> Manifest:
    """Train each named model on the events before `cutoff`; an unchanged bundle is kept.

    A bundle is unchanged when the same settings meet the same table versions: it says what it was
    trained from. Several models train side by side, each in a process with its share of the cores.
    """
    tables = [warehouse.fingerprint(name) for name in ("events", "items", "users")]
    chosen = [warehouse.settings.model(name) for name in names]
    digests = {settings.name: _digest(settings, cutoff, tables) for settings in chosen}
    manifest = {name: _unchanged(warehouse, bundle_uri(warehouse, name), digests[name]) for name in names}
    due = [settings for settings in chosen if manifest[settings.name] is None]
    return manifest | (_train(warehouse, cutoff, due, digests) if due else {})


def _train(warehouse: Warehouse, cutoff: str, due: list[ModelSettings], digests: dict[str, str]) -> Manifest:
    """Train and store the models that are due; returns their manifests by name."""
    manifest = {}
    source = Source.read(warehouse, cutoff)
    cores = os.cpu_count() or 1
    workers = max(1, min(len(due), cores))
    with (
        tempfile.TemporaryDirectory(prefix="lime-") as folder,
        # Spawned, not forked: this process holds a JVM connection and torch's threads.
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        fits = [
            pool.submit(fit, settings, cutoff, source, digests[settings.name], folder, cores // workers)
            for settings in due
        ]
        for settings, done in zip(due, fits, strict=True):
            manifest[settings.name] = done.result()
            uri = bundle_uri(warehouse, settings.name)
            store_folder(warehouse.spark, Path(folder) / settings.name, uri)
    return manifest


def fit(
    settings: ModelSettings, cutoff: str, source: Source, digest: str, folder: str, threads: int
) -> Manifest:
    """Train one model into `folder/<name>`; returns its version and metrics."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {settings.name} %(message)s", force=True)
    torch.set_num_threads(threads)
    config = dataclasses.replace(settings.config, cutoff_ds=cutoff)
    item_words = build_vocabularies(source.items, config.item_columns, at_least=MIN_VALUE_COUNT)
    user_words = build_vocabularies(source.users, config.user_columns)
    catalogue = build_catalogue(source.items, source.events, item_words, settings.min_buyers)
    data = build_training_data(source.events, source.users, catalogue, user_words, config)
    torch.manual_seed(settings.train.seed)
    model = build_model(config, catalogue, item_words, user_words)
    start_from_svd(model, data, settings.train.seed)
    started = time.monotonic()
    curve = Trainer(model, data, settings.train).fit()
    metrics = {"source": digest, "seconds": round(time.monotonic() - started, 1), "curve": curve}
    bundle = Bundle(model, catalogue, item_words, user_words, metrics, "")
    version = save_bundle(bundle, Path(folder) / settings.name)
    return {"model_version": version, "reused": False, "events": source.events.num_rows, **metrics}


def _unchanged(warehouse: Warehouse, uri: str, source: str) -> Manifest | None:
    """The manifest of the stored bundle when it was trained from the same; a damaged one is trained again."""
    if not bundle_exists(warehouse.spark, uri):
        return None
    try:
        bundle = load_bundle(fetch_folder(warehouse.spark, uri))
    except (BundleError, TypeError, KeyError) as error:  # of other code, its fields do not fit
        log.warning("the bundle at %s can't be read and is trained again: %s", uri, error)
        return None
    if bundle.metrics.get("source") != source:
        return None
    return {"model_version": bundle.version, "reused": True, **bundle.metrics}


def _digest(settings: ModelSettings, cutoff: str, tables: list[str]) -> str:
    """Of the settings, the training recipe, torch and the tables' newest versions."""
    described = [settings.model_dump(mode="json"), cutoff, torch.__version__, recipe_digest(), tables]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
