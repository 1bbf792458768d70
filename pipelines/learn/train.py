"""Train models on the events of the warehouse before a cut-off, and store them as bundles."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from lime_model.bundle import Bundle, BundleError, save_bundle
from lime_model.digests import code_digest
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.curves import plot_curve
from lime_model.train.fit import TrainingSource, fit_labels, fit_variants
from pipelines.learn.training_log import read_source
from pipelines.models.bundles import bundle_uri, fetch_folder, find_bundle, settle_folder, store_folder
from pipelines.models.champions import promote
from pipelines.settings.models import ModelSettings
from pipelines.store.manifests import TrainManifest
from pipelines.store.runs import find_manifest, record
from pipelines.store.storage import drop_folder
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)

CODE = "lime_model.train.fit"  # the module that decides the bits of a bundle


def train_models(warehouse: Warehouse, cutoff: str, names: list[str]) -> dict[str, TrainManifest]:
    """Train some models on the events before a cut-off, and make each the champion from that night on.

    Args:
        warehouse: the warehouse that contains the log; its settings name the storage of bundles.
        cutoff: the day (YYYY-MM-DD) from which on no event is read.
        names: the names of the models.

    Returns:
        The manifests by the name of the model.
    """
    trained = train_bundles(warehouse, cutoff, names)
    reason = "trained by train_model"
    return {
        name: manifest.model_copy(
            update={
                "promoted": promote(warehouse, name, manifest.model_version, valid_from=cutoff, reason=reason)
            }
        )
        for name, manifest in trained.items()
    }


def train_bundles(warehouse: Warehouse, cutoff: str, names: list[str]) -> dict[str, TrainManifest]:
    """Train some models on the events before a cut-off; an unchanged bundle is kept.

    A bundle is unchanged if it was trained by the same settings and code on the same versions of the tables.
    A new bundle is stored under its model version next to older ones, and is not promoted.

    Args:
        warehouse: the warehouse that contains the log; its settings name the storage of bundles.
        cutoff: the day (YYYY-MM-DD) from which on no event is read.
        names: the names of the models.

    Returns:
        The manifests by the name of the model; `reused` is true for an unchanged bundle.
    """
    tables = [warehouse.fingerprint(name) for name in ("events", "items", "users")]
    chosen = [warehouse.settings.model(name) for name in dict.fromkeys(names)]
    found = {s.name: _find_unchanged(warehouse, s.name, _source(s, cutoff, tables)) for s in chosen}
    due = [settings for settings in chosen if found[settings.name] is None]
    kept = {name: manifest for name, manifest in found.items() if manifest is not None}
    return kept | (_train(warehouse, cutoff, due, tables) if due else {})


def _train(
    warehouse: Warehouse, cutoff: str, due: list[ModelSettings], tables: list[str]
) -> dict[str, TrainManifest]:
    """Train and store the models of `due`; return their manifests by name."""
    manifests = {}
    log.info("sorting and fetching the events before %s", cutoff)
    source = read_source(warehouse, cutoff)
    groups: dict[str, list[ModelSettings]] = {}
    for settings in due:
        groups.setdefault(_trunk(settings), []).append(settings)
    with tempfile.TemporaryDirectory(prefix="lime-") as folder:
        for trunk, group in groups.items():
            # The checkpoints are named after the first model of the settings with this trunk, which need not
            # be one of those that are trained now.
            name = next(model.name for model in warehouse.settings.models if _trunk(model) == trunk)
            unfinished = f"{bundle_uri(warehouse, name)}.training"
            local = Path(folder) / f"{name}.training"
            checkpoints = open_checkpoints(warehouse, local, unfinished, _digest(trunk, cutoff, tables))
            for settings, bundle in zip(group, _fit(group, cutoff, source, checkpoints), strict=True):
                digest = _source(settings, cutoff, tables)
                bundle = dataclasses.replace(bundle, metrics={**bundle.metrics, "source": digest})
                version = _store(warehouse, settings.name, bundle, Path(folder) / settings.name)
                manifest = TrainManifest(model_version=version, **bundle.metrics)
                record(warehouse, _training(settings.name, digest), cutoff, manifest)
                manifests[settings.name] = manifest
            drop_folder(warehouse.spark, unfinished)
    return manifests


def _fit(
    group: list[ModelSettings], cutoff: str, source: TrainingSource, checkpoints: Checkpoints
) -> Iterator[Bundle]:
    """Train the models of a group, which share their trunk."""
    recipes = [model.recipe for model in group]
    if recipes[0].labels:
        yield fit_labels(recipes[0], cutoff, source, checkpoints)
    else:
        yield from fit_variants(recipes, cutoff, source, checkpoints)


def _store(warehouse: Warehouse, name: str, bundle: Bundle, local: Path) -> str:
    """Store a bundle under its model version, with its training curve; return the version."""
    version = save_bundle(bundle, local)
    if bundle.metrics["curve"]:  # a training of no steps has no curve
        plot_curve(bundle.metrics["curve"], local / "curve.svg")
    store_folder(warehouse.spark, local, bundle_uri(warehouse, name, version))
    return version


def open_checkpoints(warehouse: Warehouse, local: Path, uri: str, source: str) -> Checkpoints:
    """Open the checkpoints that a killed run left at `uri`, if any; every new checkpoint is copied there.

    Args:
        warehouse: the warehouse whose session copies the files.
        local: the folder of the checkpoints on the driver; it must not exist.
        uri: the folder in which they are stored.
        source: names everything that the training depends on; checkpoints of another source are not used.
    """
    if settle_folder(warehouse.spark, uri):
        fetch_folder(warehouse.spark, uri).rename(local)
    return Checkpoints(local, source, stored=lambda: store_folder(warehouse.spark, local, uri))


def _trunk(settings: ModelSettings) -> str:
    """Name all settings that the first phase of training depends on: all but the name and the variant.

    A model of labels has only one phase, which it shares with no other model.
    """
    described = settings.model_dump(mode="json")
    if not settings.labels:
        del described["name"], described["config"]["variant"]
    return json.dumps(described, sort_keys=True)


def _find_unchanged(warehouse: Warehouse, name: str, source: str) -> TrainManifest | None:
    """Find the bundle that was trained from the same source; a damaged or lost bundle is trained again."""
    done = find_manifest(warehouse, _training(name, source), TrainManifest)
    if done is None:
        return None
    try:
        find_bundle(warehouse, name, done.model_version)
    except (BundleError, TypeError, KeyError) as error:  # the fields of a bundle of other code do not fit
        log.warning("the bundle of %s can't be read and is trained again: %s", name, error)
        return None
    return done.model_copy(update={"reused": True})


def _training(name: str, source: str) -> str:
    """Name the run of a training by all that its bundle depends on."""
    return f"train-{name}-{source}"


def _source(settings: ModelSettings, cutoff: str, tables: list[str]) -> str:
    """Name all that a bundle depends on."""
    return _digest(settings.model_dump(mode="json"), cutoff, tables)


def _digest(described: object, cutoff: str, tables: list[str]) -> str:
    """Digest settings as JSON, the code of training, the version of torch and the tables' newest versions."""
    text = json.dumps([described, cutoff, torch.__version__, code_digest(CODE), tables])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
