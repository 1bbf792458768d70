"""Hundreds of generated files of every format: none causes a traceback, and every row is accounted for.

Each row has a session id of its own, and the generator knows whether the row is good and what it means, so
the tables are compared row by row. One message names all files that are torn or of another format.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from pyspark.sql import SparkSession

from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.load_events import ingest_events
from pipelines.settings.settings import load_settings
from pipelines.store.event_log import read_log
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.pipelines.ingest.random_files import File, write_csv, write_json, write_parquet

pytestmark = pytest.mark.operate
FILES, FIRST = 110, date(2024, 1, 1)


@pytest.mark.parametrize("write", [write_csv, write_json, write_parquet], ids=["csv", "json", "parquet"])
def test_every_row_of_many_files_is_accounted_for(
    spark: SparkSession, tmp_path: Path, write: Callable[[random.Random, Path, date, int], File]
) -> None:
    rng = random.Random(write.__name__)
    raw = shop.settings(tmp_path)
    raw |= {"models": [], "ids": {"user_id": "string", "item_id": "string"}}
    raw["ingest"] = {
        "format": write.__name__.removeprefix("write_"),
        "max_rejected_share": 1.0,
        "late_days": 0,
    }
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(raw))
    warehouse = Warehouse(spark, load_settings(path))
    days = [FIRST + timedelta(days=i) for i in range(FILES)]
    folders = [tmp_path / "raw" / "events" / f"ds={day}" for day in days]
    files = [write(rng, folder, day, i) for i, (folder, day) in enumerate(zip(folders, days, strict=True))]
    with pytest.raises(DropError) as error:
        ingest_events(warehouse, list(map(str, days)))
    said = str(error.value)
    torn = [(folder, file) for folder, file in zip(folders, files, strict=True) if file.torn]
    assert len(torn) >= 3
    for folder, file in torn:
        assert f"/{folder.name}/" in said
        assert file.torn in said
        for each in folder.rglob("*"):
            if each.is_file():
                each.unlink()
    report = ingest_events(warehouse, list(map(str, days)))
    whole = [file for file in files if not file.torn]
    counts = report.rows
    assert counts.delivered == sum(file.rows for file in whole)
    assert counts.delivered == counts.loaded + counts.quarantined + counts.duplicates
    expected = sorted(row for file in whole for row in file.good)
    found = read_log(warehouse).selectExpr("session_id", "user_id", "item_id", "string(event_ts)").collect()
    assert sorted(map(tuple, found)) == expected
    rejected = warehouse.read("events_quarantine").collect()
    assert len(rejected) == counts.quarantined
    assert all(row["reason"] and row["file"] and row["location"] and row["row"] for row in rejected)
