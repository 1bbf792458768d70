"""A later night computes what changed, and its tables are those of a night that computes everything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.candidates import build_candidate_bank
from pipelines.leases import Run
from pipelines.link_states import build_link_states
from pipelines.night import ingest_days
from pipelines.runs import Manifest
from pipelines.settings import Policy
from pipelines.tables import Warehouse
from tests import shop
from tests.conftest import open_shop

BUILT = {"candidate_bank": "item_id", "user_link_states": "user_id", "user_memory": "user_id"}
NEXT = "2024-05-02"


def build(warehouse: Warehouse, ds: str, key: str) -> tuple[Manifest, Manifest]:
    run = Run(ds, key)
    return build_candidate_bank(warehouse, run, "mha", [Policy()]), build_link_states(warehouse, run, "mha")


def rows_of(frame: DataFrame, key: str) -> list[dict[str, Any]]:
    """What a table says, without the night that computed a row."""
    kept = [name for name in frame.columns if name not in ("as_of", "events_version")]
    return [row.asDict() for row in frame.select(*kept).orderBy(key).collect()]


@pytest.fixture(scope="module")
def nights(trained: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A copy of the shop after one night; then a day of purchases, a moved user, a new kind of an item,
    two damaged rows and one that is there twice: built over the standing tables, and from nothing."""
    root = tmp_path_factory.mktemp("reuse")
    shutil.copytree(Path(trained.settings.drops).parent, root, dirs_exist_ok=True)
    for name in (*BUILT, "item_bias", "runs"):
        shutil.rmtree(root / "warehouse" / name, ignore_errors=True)
    warehouse = open_shop(trained.spark, root)
    built = {"first": build(warehouse, shop.NIGHT, "first"), "again": build(warehouse, shop.NIGHT, "again")}

    items, users = shop.items(), shop.users()
    items.loc[items["item_id"] == 3, "kind"] = "kind-4"
    users.loc[users["user_id"] == 38, "region"] = "region-9"
    for source, frame in (("items", items), ("users", users)):
        shop.write_drop(root / "raw", source, shop.NIGHT, frame)
    ingest_days(warehouse, shop.NIGHT, shop.NIGHT)
    warehouse.delta("user_memory").update(F.col("user_id") == 37, {"features": F.lit(b"damaged")})
    warehouse.delta("candidate_bank").update(F.col("item_id") == 7, {"dot": F.lit(b"damaged")})
    warehouse.append("candidate_bank", warehouse.read("candidate_bank").where("item_id = 9"))
    built["next"] = build(warehouse, NEXT, "next")
    tables = {name: rows_of(warehouse.read(name), key) for name, key in BUILT.items()}
    for name in BUILT:
        shutil.rmtree(root / "warehouse" / name)
    scratch = open_shop(trained.spark, root)
    built["scratch"] = build(scratch, NEXT, "scratch")
    full = {name: rows_of(scratch.read(name), key) for name, key in BUILT.items()}
    split = open_shop(trained.spark, root, buckets=2)  # no row of four buckets may stand
    built["split"] = build(split, NEXT, "split")
    buckets = {row["bucket"] for row in split.read("user_link_states").select("bucket").collect()}
    return {"built": built, "tables": tables, "full": full, "buckets": buckets}


def test_an_unchanged_night_computes_nothing(nights: dict[str, Any]) -> None:
    (bank, states), (again, same) = nights["built"]["first"], nights["built"]["again"]
    assert (bank["encoded"], bank["kept"]) == (shop.ITEMS + 1, 0)
    assert (again["encoded"], again["kept"], again["removed"]) == (0, shop.ITEMS + 1, 0)
    assert again["versions"]["candidate_bank"] == bank["versions"]["candidate_bank"]  # no commit
    assert (states["recomputed"], states["kept"]) == (shop.USERS, 0)
    assert (same["recomputed"], same["kept"], same["removed"]) == (0, shop.USERS, 0)
    assert same["versions"] == states["versions"]
    assert (same["events"], same["cold_users"]) == (states["events"], len(shop.COLD))


def test_the_next_night_computes_what_changed(nights: dict[str, Any]) -> None:
    log = shop.events()
    bought = set(log.loc[log["event_ts"].dt.normalize() == pd.Timestamp(shop.NIGHT), "user_id"])
    assert 0 < len(bought) < shop.USERS / 2
    bank, states = nights["built"]["next"]
    changed = len(bought | {37, 38})  # 37: a damaged row, 38: other features
    assert (states["recomputed"], states["kept"]) == (changed, shop.USERS - changed)
    # Item 3: another kind, 7: damaged, 9: there twice.
    assert (bank["encoded"], bank["kept"]) == (3, shop.ITEMS - 2)


def test_and_its_tables_are_those_of_a_full_build(nights: dict[str, Any]) -> None:
    bank, states = nights["built"]["scratch"]
    assert (bank["kept"], states["kept"]) == (0, 0)
    for name in BUILT:
        assert nights["tables"][name] == nights["full"][name], name


def test_another_number_of_buckets_splits_everybody_again(nights: dict[str, Any]) -> None:
    bank, states = nights["built"]["split"]
    assert (bank["encoded"], states["kept"]) == (0, 0)
    assert nights["buckets"] == {0, 1}
