"""Test a model of labels with columns of every kind in all jobs: ingest, training, a night, evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import functions as F

from lime_model.bundle import BundleError, load_bundle
from lime_model.train.fit import build_training_inputs
from pipelines.build.link_states import build_link_states
from pipelines.ingest.load_entities import ingest_entity
from pipelines.learn.evaluate import Contestant, evaluate_bundles, evaluate_models
from pipelines.learn.evaluate_labels import count_before
from pipelines.learn.train import train_models
from pipelines.learn.training_log import read_source
from pipelines.models.champions import need_champion
from pipelines.settings.base import SettingsError
from pipelines.settings.settings import load_settings
from pipelines.store.leases import Run
from pipelines.store.manifests import CertificateManifest
from pipelines.store.runs import need_manifest
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import bundle_folder, copy_tables
from tests.nights import full_night, lists_of

DAY = "2024-04-30"


def settings(root: Path) -> dict[str, Any]:
    """Return the shop's settings with a model of labels that reads a column of each kind."""
    raw = shop.settings(root)
    raw["ingest"]["items"]["columns"] |= {
        "weight": "double", "tags": "array<string>", "picture": "array<double>"
    }  # fmt: skip
    raw["ingest"]["users"]["columns"] |= {"age": "long"}
    model = raw["models"][0]
    model["config"] |= {
        "labelled": True,
        "item_columns": [
            "kind",
            {"name": "price", "kind": "hash", "size": 64},
            {"name": "item_id", "kind": "hash", "size": 64},
            {"name": "weight", "kind": "number", "size": 4},
            {"name": "tags", "kind": "list"},
            {"name": "picture", "kind": "vector", "size": 3},
        ],
        "user_columns": ["region", {"name": "age", "kind": "number"}],
    }
    model["labels"] = {
        "epochs": 12, "batch": 8, "targets": 16, "learning_rate": 5e-3, "embedding_rate": 2e-2, "dropout": 0.0
    }  # fmt: skip
    raw["models"] = [model]
    return raw


@pytest.fixture(scope="module")
def labelled(trained: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The shop with labels, by which two of five users like dear items and the others cheap ones.

    Nothing but the labels of a history shows what a user likes; every tenth event has no label.
    """
    root = tmp_path_factory.mktemp("labels")
    copy_tables(Path(trained.settings.warehouse), root / "warehouse")
    (root / "settings.yaml").write_text(yaml.safe_dump(settings(root)))
    warehouse = Warehouse(trained.spark, load_settings(root / "settings.yaml"))
    likes = ((F.col("item_id") % 4 < 2) != (F.col("user_id") % 5 < 2)).cast("double")
    some = F.when(F.xxhash64("user_id", "item_id", "event_ts") % 10 != 0, likes)
    log = warehouse.read("events").withColumn("label", some)
    log.write.format("delta").mode("overwrite").save(warehouse.path("events"))
    rng, items, users = np.random.default_rng(0), shop.items(), shop.users()
    items["weight"] = np.where(items["item_id"] % 7, rng.random(len(items)), np.nan)
    items["tags"] = [[f"tag-{i % 3}", f"tag-{i % 5}"][: i % 3] for i in items["item_id"]]
    items["picture"] = [rng.random(3).tolist() if i % 4 else None for i in items["item_id"]]
    users["age"] = pd.array([None if u % 5 == 0 else 20 + u for u in users["user_id"]], "Int64")
    for name, frame in (("items", items), ("users", users)):
        shop.write_drop(root / "raw", name, DAY, frame)
        ingest_entity(warehouse, name, [DAY])  # type: ignore[arg-type]
    train_models(warehouse, shop.NIGHT, ["mha"])
    return warehouse


@pytest.mark.nights
def test_a_night_of_labels_passes_the_certificate(labelled: Warehouse) -> None:
    run = full_night(labelled, "labels")  # this fails if the certificate fails
    assert (
        need_manifest(labelled, run, CertificateManifest).users == labelled.settings.night.certificate_users
    )
    liked = [
        (item % 4 < 2) != (user % 5 < 2)
        for user, listed in lists_of(labelled).items()
        if user not in shop.COLD
        for item, *_ in listed
        if item % 2 == user % 2  # all items of a user's history have this parity
    ]
    assert len(liked) > 50
    assert np.mean(liked) > 0.8  # the share among all items is one half


def test_the_bundle_holds_the_training_curve_as_numbers_and_as_a_picture(labelled: Warehouse) -> None:
    bundle = bundle_folder(labelled, "mha")
    curve = load_bundle(bundle).metrics["curve"]
    assert curve[-1]["valid_ne"] < curve[0]["valid_ne"]
    picture = (bundle / "curve.svg").read_text()
    assert picture.rstrip().endswith("</svg>")
    assert picture.count('id="axes_') == 3  # one shows the loss, and two show the validation metrics


def test_a_model_of_labels_predicts_better_than_the_means(labelled: Warehouse) -> None:
    rows = evaluate_models(labelled, shop.NIGHT, "test", ["mha"], horizon_days=9, min_events=5).rows
    means, found = rows
    assert (means["model"], found["model"]) == ("item and user mean", "mha")
    assert found["events"] == means["events"] > 100
    assert found["auc_95"][0] <= found["auc"] <= found["auc_95"][1]
    assert found["auc"] > means["auc"]
    assert found["normalised_entropy"] < 1
    early, mine = "2024-04-20", Contestant("mha", need_champion(labelled, "mha", shop.NIGHT))
    with pytest.raises(SettingsError, match=r"trained on events before 2024-05-01 and can't be judged"):
        evaluate_bundles(labelled, early, "test", {"mha": mine}, horizon_days=9, min_events=5)
    with pytest.raises(BundleError, match=r"no bundle for night 2024-04-20"):
        evaluate_models(labelled, early, "test", ["mha"], horizon_days=9, min_events=5)


def test_means_use_only_the_labels_of_earlier_days() -> None:
    rng = np.random.default_rng(0)
    group, day, label = rng.integers(0, 4, 60), rng.integers(-9, 3, 60), rng.integers(0, 2, 60).astype(float)
    # Some of these days are before all labels, and some of these groups have no label.
    asked, asked_day = rng.integers(0, 5, 40), rng.integers(-12, 5, 40)
    count, ones = count_before(group, day, label, asked, asked_day)
    for i in range(40):
        before = (group == asked[i]) & (day < asked_day[i])
        assert (count[i], ones[i]) == (before.sum(), label[before].sum())


def test_the_state_of_a_user_is_recomputed_when_a_label_is_corrected(labelled: Warehouse) -> None:
    first = build_link_states(labelled, Run(shop.NIGHT, "before"), "mha")
    assert first.recomputed == 0 or first.kept == 0
    labelled.delta("events").update(
        (F.col("user_id") == 5) & F.col("label").isNotNull(), {"label": 1.0 - F.col("label")}
    )
    after = build_link_states(labelled, Run(shop.NIGHT, "after"), "mha")
    assert after.recomputed == 1


def test_embedding_tables_that_are_too_large_are_refused_before_they_are_made(labelled: Warehouse) -> None:
    (model,) = labelled.settings.models
    small = dataclasses.replace(model.recipe, max_embedding_gib=1e-5)
    source = read_source(labelled, shop.NIGHT)
    config = dataclasses.replace(model.config, cutoff_ds=shop.NIGHT)
    with pytest.raises(ValueError, match=r"take 0\.00 GiB in training, max_embedding_gib is 1e-05; raise"):
        build_training_inputs(small, config, source)
