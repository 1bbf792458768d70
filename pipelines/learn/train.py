"""Training from the warehouse: everything before a cut-off, into bundles on storage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from pathlib import Path

import torch

from lime_model.bundle import BundleError, save_bundle
from lime_model.digests import code_digest
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.curves import plot_curve
from lime_model.train.fit import fit_labels, fit_variants
from pipelines.learn.training_log import read_source
from pipelines.models.bundles import bundle_uri, fetch_folder, find_bundle, settle_folder, store_folder
from pipelines.models.champions import promote
from pipelines.settings.models import ModelSettings
from pipelines.store.runs import Manifest, find_manifest, record
from pipelines.store.storage import drop_folder
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)

JOB = "train_model"
CODE = "lime_model.train.fit"  # decides the bits of a bundle


def train_models(warehouse: Warehouse, cutoff: str, names: list[str]) -> Manifest:
    """Train each named model on the events before `cutoff`, and make it champion from that night on."""
    manifest = train_bundles(warehouse, cutoff, names)
    for name, trained in manifest.items():
        trained["promoted"] = promote(
            warehouse, name, trained["model_version"], valid_from=cutoff, reason="trained by train_model"
        )
    return manifest


def train_bundles(warehouse: Warehouse, cutoff: str, names: list[str]) -> Manifest:
    """Train each named model on the events before `cutoff`; an unchanged bundle is kept.

    A bundle is unchanged when the same settings meet the same table versions. It is stored under its model
    version beside older ones, and promotes nothing.
    """
    tables = [warehouse.fingerprint(name) for name in ("events", "items", "users")]
    chosen = [warehouse.settings.model(name) for name in dict.fromkeys(names)]
    manifest = {
        settings.name: _unchanged(warehouse, settings.name, _source(settings, cutoff, tables))
        for settings in chosen
    }
    due = [settings for settings in chosen if manifest[settings.name] is None]
    return manifest | (_train(warehouse, cutoff, due, tables) if due else {})


def _train(warehouse: Warehouse, cutoff: str, due: list[ModelSettings], tables: list[str]) -> Manifest:
    """Train and store the models that are due; returns their manifests by name."""
    manifest = {}
    source = read_source(warehouse, cutoff)
    groups: dict[str, list[ModelSettings]] = {}
    for settings in due:
        groups.setdefault(_trunk(settings), []).append(settings)
    with tempfile.TemporaryDirectory(prefix="lime-") as folder:
        for trunk, group in groups.items():
            # By the first model of the settings with this trunk: it may be done, and the others not.
            name = next(model.name for model in warehouse.settings.models if _trunk(model) == trunk)
            unfinished = f"{bundle_uri(warehouse, name)}.training"
            checkpoints = open_checkpoints(
                warehouse, Path(folder) / f"{name}.training", unfinished, _digest(trunk, cutoff, tables)
            )
            recipes = [model.recipe for model in group]
            if recipes[0].labels:
                bundles = iter([fit_labels(recipes[0], cutoff, source, checkpoints)])
            else:
                bundles = fit_variants(recipes, cutoff, source, checkpoints)
            for settings, bundle in zip(group, bundles, strict=True):
                digest = _source(settings, cutoff, tables)
                metrics = {**bundle.metrics, "source": digest}
                local = Path(folder) / settings.name
                version = save_bundle(dataclasses.replace(bundle, metrics=metrics), local)
                if metrics["curve"]:  # none of zero steps
                    plot_curve(metrics["curve"], local / "curve.svg")
                store_folder(warehouse.spark, local, bundle_uri(warehouse, settings.name, version))
                about = {"model_version": version, **metrics}
                record(warehouse, _training(settings.name, digest), cutoff, JOB, about)
                manifest[settings.name] = {**about, "reused": False}
            drop_folder(warehouse.spark, unfinished)
    return manifest


def open_checkpoints(warehouse: Warehouse, local: Path, uri: str, source: str) -> Checkpoints:
    """Those that a killed run left at `uri`, if any; every save is carried there."""
    if settle_folder(warehouse.spark, uri):
        fetch_folder(warehouse.spark, uri).rename(local)
    return Checkpoints(local, source, stored=lambda: store_folder(warehouse.spark, local, uri))


def _trunk(settings: ModelSettings) -> str:
    """Names all that the first phase of training depends on: everything but the variant.

    A model of labels has one phase, and no other shares it.
    """
    described = settings.model_dump(mode="json")
    if not settings.labels:
        del described["name"], described["config"]["variant"]
    return json.dumps(described, sort_keys=True)


def _unchanged(warehouse: Warehouse, name: str, source: str) -> Manifest | None:
    """The manifest of the bundle that was trained from the same; a damaged or lost one is trained again."""
    done = find_manifest(warehouse, _training(name, source), JOB)
    if done is None:
        return None
    try:
        find_bundle(warehouse, name, done["model_version"])
    except (BundleError, TypeError, KeyError) as error:  # of other code, its fields do not fit
        log.warning("the bundle of %s can't be read and is trained again: %s", name, error)
        return None
    return {**done, "reused": True}


def _training(name: str, source: str) -> str:
    """The run id of a training, by all that its bundle depends on."""
    return f"train-{name}-{source}"


def _source(settings: ModelSettings, cutoff: str, tables: list[str]) -> str:
    """Names all that a bundle depends on."""
    return _digest(settings.model_dump(mode="json"), cutoff, tables)


def _digest(described: object, cutoff: str, tables: list[str]) -> str:
    """Of settings as JSON, the training recipe, torch and the tables' newest versions."""
    text = json.dumps([described, cutoff, torch.__version__, code_digest(CODE), tables])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
