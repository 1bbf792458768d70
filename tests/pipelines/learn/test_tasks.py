"""Test a night of a model with two tasks: it is trained on event types, certified and published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from lime_model.bundle import load_bundle
from lime_model.scoring.canonical import Weights
from pipelines.learn.train import train_models
from pipelines.settings.settings import load_settings
from pipelines.store.manifests import CertificateManifest
from pipelines.store.runs import need_manifest
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import bundle_folder, copy_tables
from tests.nights import full_night, lists_of

pytestmark = pytest.mark.operate


def test_a_night_of_two_tasks_passes_the_certificate(trained: Warehouse, tmp_path: Path) -> None:
    copy_tables(Path(trained.settings.warehouse), tmp_path / "warehouse")
    settings = load_settings(shop.write_settings(tmp_path))
    types = ("view", "purchase")
    config = dataclasses.replace(
        settings.models[0].config, event_types=types, tasks=types, task_weights=(0.25, 1.0)
    )
    models = [settings.models[0].model_copy(update={"config": config})]
    warehouse = Warehouse(trained.spark, settings.model_copy(update={"models": models}))
    kind = F.when(F.col("item_id") % 2 == 0, "view").otherwise("purchase")
    log = warehouse.read("events").withColumn("event_type", kind)
    log.write.format("delta").mode("overwrite").save(warehouse.path("events"))
    train_models(warehouse, shop.NIGHT, ["mha"])
    run = full_night(warehouse, "tasks")  # this fails if the certificate fails
    verified = need_manifest(warehouse, run, CertificateManifest)
    assert verified.users == settings.night.certificate_users
    assert {len(listed) for listed in lists_of(warehouse).values()} == {settings.night.k}
    model = load_bundle(bundle_folder(warehouse, "mha")).model
    assert Weights.of(model).out.tolist() == [
        0.25 * view + purchase
        for view, purchase in zip(*model.head_out.weight.double().tolist(), strict=True)
    ]
