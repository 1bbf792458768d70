"""One whole night over the shop: what is published, seen from outside Spark."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from deltalake import DeltaTable

from pipelines.leases import Run, acquire_lease
from pipelines.night import STEPS
from pipelines.tables import Warehouse
from tests import shop


def lists_of(warehouse: Warehouse, ds: str = shop.NIGHT) -> dict[int, list[tuple[int, float]]]:
    """Published lists, read with `deltalake`: no Spark involved."""
    table = DeltaTable(warehouse.path("recommendations")).to_pyarrow_table(partitions=[("ds", "=", ds)])
    return {
        row["user_id"]: [(c["item_id"], c["score"]) for c in row["candidates"]] for row in table.to_pylist()
    }


def test_every_user_has_k_items_in_order(published: tuple[Warehouse, Run]) -> None:
    lists = lists_of(published[0])
    assert sorted(lists) == list(range(shop.USERS))
    for candidates in lists.values():
        assert len(candidates) == 10
        assert len({item for item, _ in candidates}) == 10
        assert candidates == sorted(candidates, key=lambda c: (-c[1], c[0]))
        assert np.isfinite([score for _, score in candidates]).all()


def test_the_commit_carries_the_manifest(published: tuple[Warehouse, Run]) -> None:
    warehouse, run = published
    commits = DeltaTable(warehouse.path("recommendations")).history()
    manifest: dict[str, Any] = json.loads(commits[0]["userMetadata"])
    assert manifest["run_id"] == run.run_id
    assert manifest["certificate"]["passed"] is True
    assert manifest["certificate"]["users"] >= 24
    assert manifest["certificate"]["strata"]["cold"] == len(shop.COLD)
    assert manifest["certificate"]["worst_relative_error"] < 1e-4
    assert manifest["scoring"]["pairs"] == shop.USERS * (shop.ITEMS + 1)
    assert manifest["backend"] == {"backend": "tiled", "device": "cpu", "why": "asked for"}


def test_a_retry_changes_nothing(published: tuple[Warehouse, Run]) -> None:
    warehouse, run = published
    before = DeltaTable(warehouse.path("recommendations")).version()
    again = acquire_lease(warehouse, run.ds, run.key)
    assert again == run
    manifest = STEPS["publish_recommendations"](warehouse, again)
    assert manifest["reused"] is True
    assert DeltaTable(warehouse.path("recommendations")).version() == before
