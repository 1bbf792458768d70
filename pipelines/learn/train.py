"""Training from the warehouse: everything before a cut-off, into bundles on storage."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from lime_model.bundle import Bundle, BundleError, build_model, save_bundle
from lime_model.train.checkpoints import Checkpoints
from lime_model.config import ModelConfig
from lime_model.train.curves import plot_curve
from lime_model.train.dataset import MIN_VALUE_COUNT, build_catalogue, build_training_data, fit_encoders
from lime_model.errors import TrainingError
from lime_model.train.examples import TrainingData
from lime_model.model.features import Catalogue, Encoders, table_rows
from lime_model.train.labels import Asked, LabelTrainer
from lime_model.digests import recipe_digest
from lime_model.train.two_phase import Trainer, start_from_svd
from pipelines.models.bundles import bundle_uri, fetch_folder, find_bundle, settle_folder, store_folder
from pipelines.models.champions import promote
from pipelines.store.runs import Manifest, find_manifest, record
from pipelines.settings.settings import ModelSettings
from pipelines.store.storage import drop_folder
from pipelines.store.tables import Warehouse
from pipelines.learn.training_log import Source

log = logging.getLogger(__name__)

JOB = "train_model"
BYTES_PER_WEIGHT = 16  # fp32: the weight, its gradient and AdamW's two moments


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
    source = Source.read(warehouse, cutoff)
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
            learn = fit_labels if group[0].labels else fit
            for settings, bundle in zip(group, learn(group, cutoff, source, checkpoints), strict=True):
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


def fit(
    group: Sequence[ModelSettings], cutoff: str, source: Source, checkpoints: Checkpoints | None = None
) -> Iterator[Bundle]:
    """Train models that differ in their variant alone: the towers once, then each one's links.

    With `checkpoints` a run that was killed goes on.
    """
    first = group[0]
    config = dataclasses.replace(first.config, cutoff_ds=cutoff)
    of_items, of_users, data = prepare(first, config, source)
    models = []
    for settings in group:
        torch.manual_seed(first.train.seed)
        variant = dataclasses.replace(config, variant=settings.config.variant)
        models.append(build_model(variant, data.catalogue, of_items, of_users))
    start_from_svd(models[0], data, first.train.seed)
    started = time.monotonic()
    trainer = Trainer(models[0], data, first.train, checkpoints)
    trainer.fit_towers()
    towers = time.monotonic() - started
    trainers = [trainer, *(trainer.adopt(model) for model in models[1:])]
    for settings, each in zip(group, trainers, strict=True):
        started = time.monotonic()
        log.info("%s: towers stand after %.0f s, now its links", settings.name, towers)
        curve = each.fit_links()
        seconds = round(towers + time.monotonic() - started, 1)
        metrics = {"seconds": seconds, "events": len(data.log.item), "curve": curve}
        yield Bundle(each.model, data.catalogue, of_items, of_users, metrics, "")


def fit_labels(
    group: Sequence[ModelSettings], cutoff: str, source: Source, checkpoints: Checkpoints | None = None
) -> Iterator[Bundle]:
    """Train the one model of a group on labels; the last `valid_days` before the cut-off judge it."""
    (settings,) = group
    assert settings.labels is not None
    # Nothing trains these two: every event is asked for once, and the night's date says nothing of a label.
    without = tuple(dict.fromkeys((*settings.config.without, "bias", "memory")))
    config = dataclasses.replace(settings.config, cutoff_ds=cutoff, without=without)
    of_items, of_users, data = prepare(settings, config, source)
    torch.manual_seed(settings.labels.seed)
    model = build_model(config, data.catalogue, of_items, of_users)
    late = data.log.days >= -settings.labels.valid_days
    started = time.monotonic()
    trainer = LabelTrainer(model, data, Asked(~late, late), settings.labels, checkpoints=checkpoints)
    curve = trainer.fit()
    seconds = round(time.monotonic() - started, 1)
    metrics = {"seconds": seconds, "events": len(data.log.item), "curve": curve}
    yield Bundle(model.eval(), data.catalogue, of_items, of_users, metrics, "")


def prepare(
    settings: ModelSettings, config: ModelConfig, source: Source
) -> tuple[Encoders, Encoders, TrainingData]:
    """Columns of items and users as training knows them, and its arrays.

    Raises:
        TrainingError: there is nothing to learn from, or the embedding tables would be too large.
    """
    of_items = fit_encoders(source.items, config.item_columns, at_least=MIN_VALUE_COUNT)
    of_users = fit_encoders(source.users, config.user_columns)
    catalogue = build_catalogue(source.items, source.events, of_items, settings.min_buyers)
    _check_tables(settings, catalogue, of_items, of_users)
    return of_items, of_users, build_training_data(source.events, source.users, catalogue, of_users, config)


def _check_tables(
    settings: ModelSettings, catalogue: Catalogue, of_items: Encoders, of_users: Encoders
) -> None:
    """Before anything is allocated.

    Raises:
        TrainingError: the embedding tables take more than `max_embedding_gib`.
    """
    ids, config = int(catalogue.id_rows.max(initial=0)) + 1, settings.config
    numbers = (ids + table_rows(of_items)) * config.width + table_rows(of_users) * config.user_width
    size = numbers * BYTES_PER_WEIGHT / 2**30
    if size > settings.max_embedding_gib:
        raise TrainingError(
            f"model {settings.name}: embedding tables of {ids:,} item ids, {table_rows(of_items):,} rows of "
            f"item columns and {table_rows(of_users):,} of user columns take {size:.2f} GiB in training, "
            f"max_embedding_gib is {settings.max_embedding_gib:g}; raise min_buyers, give a long column "
            "kind: hash, lower width, or raise the limit"
        )


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
    text = json.dumps([described, cutoff, torch.__version__, recipe_digest(), tables])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
