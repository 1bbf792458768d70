"""The declared lineage names the tables that the steps of a night read and write."""

from __future__ import annotations

from typing import Any

import pytest

from dags.lineage import EDGES
from pipelines.night import STEPS
from pipelines.steps import Job
from pipelines.store.leases import acquire_lease
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import open_shop

pytestmark = pytest.mark.operate
BOOKS = {"runs", "leases", "loaded_drops"}
# A step writes these tables only if it sets rows aside.
QUARANTINES = {"events_quarantine", "bank_quarantine"}
READS, WRITES = ("read", "read_cached"), ("replace", "append", "upsert", "overwrite")


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[tuple[str, str]]]:
    """Record the tables of each step as (reads or writes, name); the last key is the running step."""
    found: dict[str, set[tuple[str, str]]] = {}

    def listen(method: str, kind: str) -> None:
        real = getattr(Warehouse, method)

        def call(self: Warehouse, name: str, *args: Any, **more: Any) -> Any:
            found[next(reversed(found))].add((kind, name))
            return real(self, name, *args, **more)

        monkeypatch.setattr(Warehouse, method, call)

    for method in READS:
        listen(method, "reads")
    for method in WRITES:
        listen(method, "writes")
    return found


def test_each_step_touches_what_it_declares(
    shop_of_its_own: Warehouse,
    touched: dict[str, set[tuple[str, str]]],
) -> None:
    steps = [name for name in STEPS if name not in ("ingest_events", "export_recommendations")]
    sides = ["build_link_states", "build_candidate_bank", *steps[2:]]
    for night, order in (
        ("2024-05-08", steps),
        ("2024-05-09", sides),
    ):  # a full night, and an incremental one after it
        touched["lease"] = set()
        run = acquire_lease(shop_of_its_own, night, "lineage")
        for name in order:  # bank and states may be built in any order
            touched[name] = touched.pop(name, set())
            STEPS[name](shop_of_its_own, run)
    del touched["lease"]
    found = {name: (of(tables, "reads"), of(tables, "writes")) for name, tables in touched.items()}
    declared = {name: (EDGES[name].reads, EDGES[name].writes - QUARANTINES) for name in found}
    assert found == declared


def of(tables: set[tuple[str, str]], kind: str) -> frozenset[str]:
    return frozenset(table for how, table in tables if how == kind) - BOOKS - QUARANTINES


def test_ingest_touches_what_it_declares(
    spark: Any, tmp_path: Any, touched: dict[str, set[tuple[str, str]]]
) -> None:
    shop.write_shop(tmp_path / "raw")
    warehouse = open_shop(spark, tmp_path)
    touched["ingest_events"] = set()
    STEPS[Job.INGEST_EVENTS](warehouse, acquire_lease(warehouse, shop.NIGHT, "first"))
    assert of(touched["ingest_events"], "writes") <= EDGES["ingest_events"].writes
    assert "events" in of(touched["ingest_events"], "writes")
