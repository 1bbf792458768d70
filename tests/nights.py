"""Helpers for tests of complete nights: run nights, read lists, and add drops to a shop."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from deltalake import DeltaTable
from pyspark.sql import functions as F

from pipelines.ingest.load_days import ingest_days
from pipelines.night import STEPS
from pipelines.settings.settings import Settings
from pipelines.store.leases import Run, acquire_lease
from pipelines.store.manifests import BankManifest, ScoreManifest, StatesManifest
from pipelines.store.predicates import equals
from pipelines.store.runs import need_manifest, record
from pipelines.store.tables import Warehouse
from synthetic import shop

M = TypeVar("M", bound=BankManifest | StatesManifest | ScoreManifest)
Lists = dict[int, list[tuple[int, float]]]
SCORED = ("build_candidate_bank", "build_link_states", "score_candidates", "verify_night")


def lists_of(warehouse: Warehouse, ds: str = shop.NIGHT) -> Lists:
    """Return the published lists of a night, read with `deltalake` and without Spark."""
    table = DeltaTable(warehouse.path("recommendations")).to_pyarrow_table(
        filters=[("ds", "=", date.fromisoformat(ds))]
    )
    return {r["user_id"]: [(c["item_id"], c["score"]) for c in r["candidates"]] for r in table.to_pylist()}


def staged_of(warehouse: Warehouse, run: Run, policy: str) -> Lists:
    mine = (F.col("run_id") == run.run_id) & (F.col("policy") == policy)
    rows = warehouse.read("staging").where(mine).collect()
    return {r["user_id"]: [(c["item_id"], c["score"]) for c in r["candidates"]] for r in rows}


def with_night(warehouse: Warehouse, **changes: Any) -> Warehouse:
    """Return the same tables under other settings of the night."""
    night = warehouse.settings.night.model_copy(update=changes)
    settings: Settings = warehouse.settings.model_copy(update={"night": night})
    return Warehouse(warehouse.spark, settings)


def full_night(warehouse: Warehouse, key: str, ds: str = shop.NIGHT) -> Run:
    run = acquire_lease(warehouse, ds, key)
    for name, step in STEPS.items():
        if name != "ingest_events":
            step(warehouse, run)
    return run


def point_at(warehouse: Warehouse, run: Run, kind: type[M], table: str) -> None:
    """Change the run's manifest so that it names the newest version of a table."""
    manifest = need_manifest(warehouse, run, kind)
    changes: dict[str, Any] = {"versions": {**manifest.versions, table: warehouse.version(table)}}
    if isinstance(manifest, StatesManifest):
        changes["tables"] = {**manifest.tables, table: warehouse.fingerprint(table)}
    record(warehouse, run.run_id, run.ds, manifest.model_copy(update=changes))


def removing(warehouse: Warehouse) -> Warehouse:
    """Return the same tables under a setting that removes items which a later drop lacks."""
    ingest = warehouse.settings.ingest
    items = ingest.items.model_copy(update={"absent": "remove"})
    changed = warehouse.settings.model_copy(update={"ingest": ingest.model_copy(update={"items": items})})
    return Warehouse(warehouse.spark, changed)


def day_of(warehouse: Warehouse, day: str, events: list[tuple[int, int, str]]) -> None:
    """Write a drop with events `(user, item, time)` of a day, and load it."""
    root = Path(warehouse.settings.drops)
    rows = pd.DataFrame(events, columns=["user_id", "item_id", "event_ts"])
    rows["event_ts"] = pd.to_datetime(f"{day} " + rows["event_ts"]).astype("datetime64[us]")
    rows["session_id"] = [f"{day}-{user}" for user in rows["user_id"]]
    shop.write_drop(root, "events", day, rows)
    ingest_days(warehouse, day, day)


def items_of(warehouse: Warehouse, day: str, change: dict[int, str], gone: tuple[int, ...] = ()) -> None:
    """Write a catalogue of a day: change the kinds of some items, add items, and leave `gone` out."""
    items = shop.items()
    for item, kind in change.items():
        if item in set(items["item_id"]):
            items.loc[items["item_id"] == item, "kind"] = kind
        else:
            items.loc[len(items)] = [item, kind, "price-1"]
    shop.write_drop(Path(warehouse.settings.drops), "items", day, items[~items["item_id"].isin(gone)])


def publish(warehouse: Warehouse, ds: str, key: str, lists: dict[int, list[tuple[int, float]]]) -> Run:
    """Publish the given lists as a run of the night would."""
    run = acquire_lease(warehouse, ds, key)
    rows: list[dict[str, Any]] = [
        {
            "ds": None, "user_id": user, "shortfall": 0, "fault": None, "model_version": key,
            "run_id": run.run_id, "candidates": [{"item_id": i, "score": s} for i, s in items],
        }
        for user, items in lists.items()
    ]  # fmt: skip
    frame = warehouse.spark.createDataFrame(rows, warehouse.schema("recommendations"))
    warehouse.replace(
        "recommendations", frame.withColumn("ds", F.lit(ds).cast("date")), equals(ds=ds),
        metadata=f'{{"run_id": "{run.run_id}"}}', txn=(f"publish-{ds}", run.epoch or 0),
    )  # fmt: skip
    return run
