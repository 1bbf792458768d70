"""Trains models from a log and its items and users: everything that decides the bits of a bundle.

    for bundle in fit_variants([recipe], "2017-12-04", source):
        save_bundle(bundle, folder)

Nothing here knows Spark, tables or settings files, so a model can be trained in a notebook, too. A bundle's
code digest covers this module and everything that it imports (`lime_model/digests.py`).

Letters: I items, U users, n events.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import torch

from lime_model.bundle import Bundle, build_model
from lime_model.config import ModelConfig
from lime_model.errors import TrainingError
from lime_model.model.features import Catalogue, Encoders, table_rows
from lime_model.recipe import Recipe
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.dataset import MIN_VALUE_COUNT, build_catalogue, build_training_data, fit_encoders
from lime_model.train.event_log import TrainingData
from lime_model.train.labels import Asked, LabelTrainer
from lime_model.train.mapped_log import Pieces
from lime_model.train.two_phase import Trainer, start_from_svd

log = logging.getLogger(__name__)

BYTES_PER_WEIGHT = 16  # an fp32 weight, its gradient and the two moments that AdamW keeps of it


class TrainingSource(NamedTuple):
    """What models are trained from.

    `events` walks the log in pieces of whole users, in history order, with the columns that
    `build_training_data` names. `items` has `item_id` and `users` has `user_id`; both have feature columns.
    """

    events: Pieces
    items: pa.Table
    users: pa.Table


class TrainingInputs(NamedTuple):
    """The encoders of item and user columns, and the arrays that training reads."""

    item_encoders: Encoders
    user_encoders: Encoders
    data: TrainingData


def fit_variants(
    recipes: Sequence[Recipe], cutoff: str, source: TrainingSource, checkpoints: Checkpoints | None = None
) -> Iterator[Bundle]:
    """Train models that differ in their variant alone: the towers once, then the links of each model.

        (bundle,) = fit_variants([Recipe("mha", config)], "2017-12-04", TrainingSource(events, items, users))
        version = save_bundle(bundle, Path("bundle"))

    Args:
        recipes: one recipe for each model; only the variant is read from all but the first.
        cutoff: the day (YYYY-MM-DD) from which on no event is read.
        source: log, items and users before that day.
        checkpoints: where a run that was killed left its state; the run continues from there.

    Yields:
        One bundle for each recipe, in their order, without a model version.

    Raises:
        TrainingError: see `build_training_inputs`; or no user has enough events.
        LossError: a loss is not finite.
    """
    first = recipes[0]
    config = dataclasses.replace(first.config, cutoff_ds=cutoff)
    items, users, data = build_training_inputs(first, config, source)
    models = []
    for recipe in recipes:
        torch.manual_seed(first.train.seed)
        variant = dataclasses.replace(config, variant=recipe.config.variant)
        models.append(build_model(variant, data.catalogue, items, users))
    start_from_svd(models[0], data, first.train.seed)
    started = time.monotonic()
    trainer = Trainer(models[0], data, first.train, checkpoints)
    trainer.fit_towers()
    tower_seconds = time.monotonic() - started
    trainers = [trainer, *(trainer.adopt(model) for model in models[1:])]
    for recipe, each in zip(recipes, trainers, strict=True):
        started = time.monotonic()
        log.info("%s: the towers are trained after %.0f s; training its links", recipe.name, tower_seconds)
        curve = each.fit_links()
        seconds = round(tower_seconds + time.monotonic() - started, 1)
        metrics = {"seconds": seconds, "events": len(data.log.item), "curve": curve}
        yield Bundle(each.model, data.catalogue, items, users, metrics, "")


def fit_labels(
    recipe: Recipe, cutoff: str, source: TrainingSource, checkpoints: Checkpoints | None = None
) -> Bundle:
    """Train a model of labels; validation is on the last `valid_days` before the cut-off.

    Args:
        recipe: the recipe; its `labels` are not None.
        cutoff: the day (YYYY-MM-DD) from which on no event is read.
        source: log, items and users before that day.
        checkpoints: where a run that was killed left its state; the run continues from there.

    Returns:
        The bundle, without a model version.

    Raises:
        TrainingError: see `build_training_inputs`; or the log has no usable labels.
        LossError: a loss is not finite.
    """
    assert recipe.labels is not None
    # Nothing trains these two parts: every event is predicted once, and a label does not depend on the night.
    without = tuple(dict.fromkeys((*recipe.config.without, "bias", "memory")))
    config = dataclasses.replace(recipe.config, cutoff_ds=cutoff, without=without)
    items, users, data = build_training_inputs(recipe, config, source)
    torch.manual_seed(recipe.labels.seed)
    model = build_model(config, data.catalogue, items, users)
    late = data.log.days >= -recipe.labels.valid_days
    started = time.monotonic()
    trainer = LabelTrainer(model, data, Asked(~late, late), recipe.labels, checkpoints=checkpoints)
    curve = trainer.fit()
    seconds = round(time.monotonic() - started, 1)
    metrics = {"seconds": seconds, "events": len(data.log.item), "curve": curve}
    return Bundle(model.eval(), data.catalogue, items, users, metrics, "")


def build_training_inputs(recipe: Recipe, config: ModelConfig, source: TrainingSource) -> TrainingInputs:
    """Fit the encoders of all columns and encode the log.

    Args:
        recipe: gives `min_buyers` and `max_embedding_gib`.
        config: the model's, with the cut-off of this training.
        source: log, items and users before that day.

    Raises:
        TrainingError: there is nothing to learn from, or the embedding tables would be too large.
    """
    items = fit_encoders(source.items, config.item_columns, at_least=MIN_VALUE_COUNT)
    users = fit_encoders(source.users, config.user_columns)
    catalogue = build_catalogue(source.items, source.events, items, recipe.min_buyers)
    _check_embedding_tables(recipe, catalogue, items, users)
    data = build_training_data(source.events, source.users, catalogue, users, config)
    return TrainingInputs(items, users, data)


def _check_embedding_tables(recipe: Recipe, catalogue: Catalogue, items: Encoders, users: Encoders) -> None:
    """Refuse tables that are too large before anything is allocated.

    Raises:
        TrainingError: the embedding tables take more than `max_embedding_gib`.
    """
    ids, config = int(catalogue.id_rows.max(initial=0)) + 1, recipe.config
    numbers = (ids + table_rows(items)) * config.width + table_rows(users) * config.user_width
    size = numbers * BYTES_PER_WEIGHT / 2**30
    if size > recipe.max_embedding_gib:
        raise TrainingError(
            f"model {recipe.name}: embedding tables of {ids:,} item ids, {table_rows(items):,} rows of "
            f"item columns and {table_rows(users):,} of user columns take {size:.2f} GiB in training, "
            f"max_embedding_gib is {recipe.max_embedding_gib:g}; raise min_buyers, give a long column "
            "kind: hash, lower width, or raise the limit"
        )
