"""A night taken back: the lists before it, to the bit, by time travel both."""

from __future__ import annotations

from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from pipelines.leases import Run, StaleRun, acquire_lease
from pipelines.rollback import NothingToRollBack, published, roll_back_night
from pipelines.runs import record
from pipelines.tables import Warehouse
from pipelines.upkeep import vacuum
from tests.pipelines.test_night import lists_of

NIGHT = "2024-05-09"


def publish(warehouse: Warehouse, ds: str, key: str, lists: dict[int, list[tuple[int, float]]]) -> Run:
    """Lists of our own, published as a night's run would."""
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
        "recommendations", frame.withColumn("ds", F.lit(ds).cast("date")), f"ds = '{ds}'",
        metadata=f'{{"run_id": "{run.run_id}"}}', txn=(f"publish-{ds}", run.epoch or 0),
    )  # fmt: skip
    return run


FIRST, SECOND = {1: [(5, 0.5), (6, 0.25)], 2: [(7, 1.0)]}, {1: [(8, 2.0)], 3: [(5, 0.1)]}


def back(warehouse: Warehouse, key: str, to: str | None = None) -> dict[str, Any]:
    return roll_back_night(warehouse, acquire_lease(warehouse, NIGHT, key), "a test", to)


def test_back_and_back_again_and_forth(empty_shop: Warehouse) -> None:
    warehouse = empty_shop
    publish(warehouse, "2024-05-08", "other night", {9: [(9, 9.0)]})
    one = publish(warehouse, NIGHT, "one", FIRST)
    first = lists_of(warehouse, NIGHT)
    two = publish(warehouse, NIGHT, "two", SECOND)
    second, version = lists_of(warehouse, NIGHT), DeltaTable(warehouse.path("recommendations")).version()

    found = back(warehouse, "back")
    assert (found["run_id"], found["instead_of"], found["reason"]) == (one.run_id, two.run_id, "a test")
    assert lists_of(warehouse, NIGHT) == first
    assert back(warehouse, "back")["reused"]  # a retry takes nothing more back
    assert lists_of(warehouse, NIGHT) == first

    with pytest.raises(StaleRun, match="overtaken"):  # the run that was taken back can't come again
        acquire_lease(warehouse, NIGHT, "two")
    assert back(warehouse, "again")["run_id"] is None  # withdrawn: nothing stood before the first
    assert lists_of(warehouse, NIGHT) == {}
    assert lists_of(warehouse, "2024-05-08") == {9: [(9, 9.0)]}
    with pytest.raises(NothingToRollBack, match="no lists are published"):
        back(warehouse, "too far")
    assert back(warehouse, "a mistake", two.run_id)["instead_of"] is None  # by name it can be put back
    assert lists_of(warehouse, NIGHT) == second

    old = warehouse.read("recommendations", version).where(f"ds = '{NIGHT}'").collect()  # time travel
    assert {r["user_id"]: [(c["item_id"], c["score"]) for c in r["candidates"]] for r in old} == second


def test_to_a_run_by_name(empty_shop: Warehouse) -> None:
    one, two = publish(empty_shop, NIGHT, "one", FIRST), publish(empty_shop, NIGHT, "two", SECOND)
    second = lists_of(empty_shop, NIGHT)
    with pytest.raises(NothingToRollBack, match=rf"'{NIGHT}.7' never published it; others .*'{one.run_id}'"):
        back(empty_shop, "nobody", f"{NIGHT}.7")
    back(empty_shop, "to one", one.run_id)
    assert back(empty_shop, "to two", two.run_id)["instead_of"] == one.run_id
    assert lists_of(empty_shop, NIGHT) == second
    assert [commit.run_id for commit in published(empty_shop, NIGHT)] == [
        one.run_id, two.run_id, one.run_id, two.run_id
    ]  # fmt: skip


def test_a_run_that_publishes_meanwhile_wins(empty_shop: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(empty_shop, NIGHT, "one", FIRST)
    mine = acquire_lease(empty_shop, NIGHT, "slow roll back")
    publish(empty_shop, NIGHT, "two", SECOND)
    second = lists_of(empty_shop, NIGHT)
    with pytest.raises(StaleRun, match="overtaken by run 'two'"):
        roll_back_night(empty_shop, mine, "a test")
    monkeypatch.setattr("pipelines.rollback.check_lease", lambda warehouse, run: run)
    with pytest.raises(StaleRun, match="a newer run published"):
        roll_back_night(empty_shop, mine, "a test")
    assert lists_of(empty_shop, NIGHT) == second


def test_what_a_vacuum_has_taken_is_said_and_nothing_changes(empty_shop: Warehouse) -> None:
    publish(empty_shop, NIGHT, "one", FIRST)
    publish(empty_shop, NIGHT, "two", SECOND)
    second = lists_of(empty_shop, NIGHT)
    assert vacuum(empty_shop, "recommendations", 0) > 0
    with pytest.raises(NothingToRollBack, match=rf"lists of run {NIGHT}.1 are gone .*nothing was changed"):
        back(empty_shop, "too late")
    assert lists_of(empty_shop, NIGHT) == second


def test_a_run_that_delta_has_forgotten_is_named_and_the_night_not_withdrawn(empty_shop: Warehouse) -> None:
    """Its commit left the log; its manifest says that it published."""
    record(empty_shop, f"{NIGHT}.7", NIGHT, "publish_recommendations", {"run_id": f"{NIGHT}.7"})
    publish(empty_shop, NIGHT, "one", FIRST)
    with pytest.raises(NothingToRollBack, match=rf"\['{NIGHT}.7'\] published it before, and Delta's log"):
        back(empty_shop, "unknown")
    assert len(lists_of(empty_shop, NIGHT)) == len(FIRST)
