"""Times, types and formats as sources write them: each value is read or refused."""

from __future__ import annotations

import decimal
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.load_entities import ingest_entity
from pipelines.ingest.load_events import ingest_events
from pipelines.store.catalogue import read_entity
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.pipelines.ingest.drops import (
    DAY,
    NEXT,
    lenient_shop,
    log_of,
    make_shop,
    put_file,
    reasons,
    write_events,
)


def test_a_log_delivered_by_local_days_is_loaded_completely(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make_shop(spark, tmp_path, format="csv", source_timezone="Asia/Tokyo", late_days=0)
    put_file(
        warehouse,
        f"ds={DAY}/a.csv",
        "user_id,item_id,event_ts\n"
        f"u1,a,{DAY} 00:30:00\n"  # in UTC, this is the day before
        f"u2,a,{DAY} 23:30:00\n"
        f"u3,a,{DAY}T12:00:00Z\n"  # has its own zone
        f"u4,a,{DAY}T01:00:00+09:00\n",
    )
    assert ingest_events(warehouse, [DAY]).rejected == {}
    assert log_of(warehouse) == [
        ("u1", "a", "2024-03-04 15:30:00"),
        ("u2", "a", "2024-03-05 14:30:00"),
        ("u3", "a", "2024-03-05 12:00:00"),
        ("u4", "a", "2024-03-04 16:00:00"),
    ]
    by_utc = make_shop(
        spark, tmp_path, format="csv", source_timezone="Asia/Tokyo", folder_timezone="UTC", late_days=0
    )
    with pytest.raises(DropError, match=r"2 × too_late \(such as '2024-03-04 15:30:00' in .*a.csv, line 2\)"):
        ingest_events(by_utc, [DAY])


def write_different_types(warehouse: Warehouse) -> None:
    """Write the events of two days in four files, no two of which have the same types."""
    noon = pd.Timestamp(f"{DAY} 12:00")
    one = pa.table(
        {
            "ds": pa.array([12345678, 2], pa.int64()),
            "file": pa.array(["x", "y"]).dictionary_encode(),
            "row": pa.array([noon.value + 123, noon.value], pa.timestamp("ns")),
            "reason": pa.nulls(2),
            "Price": [1.0, 2.0],
            "price": ["a", "b"],
            "a`b.c d": [1, 2],
            "_metadata": [1, 2],
            "clock": pa.array([1, 2], pa.time64("ns")),
            "half": pa.array(np.array([1, 2], np.float16)),
        }
    )
    two = pa.table(
        {
            "row": pa.array([noon, noon], pa.timestamp("ms", tz="Europe/Berlin")),
            "reason": [1.0, 0.0],
            "file": pa.array([decimal.Decimal("7.00"), decimal.Decimal("8.50")], pa.decimal128(9, 2)),
            "ds": pa.array([12345678.0, None], pa.float64()),
            "drop_ds": ["q", "q"],
        }
    )
    third = pa.table({"ds": [b"z"], "file": [True], "row": [pd.Timestamp(NEXT).date()], "reason": [True]})
    put_file(warehouse, f"ds={DAY}/b.parquet", one)
    put_file(warehouse, f"ds={DAY}/a.parquet", two)
    put_file(warehouse, f"ds={NEXT}/with space [1].parquet", third)
    int96 = pa.table({"ds": ["y"], "file": ["y"], "row": pa.array([noon], pa.timestamp("us")), "reason": [0]})
    pq.write_table(
        int96, put_file(warehouse, f"ds={NEXT}/i96.parquet", int96), use_deprecated_int96_timestamps=True
    )


def test_parquet_files_of_different_types_are_read_as_one_log(spark: SparkSession, tmp_path: Path) -> None:
    """The types change from file to file, and some columns have our names or can't be read by Spark."""
    names = {"user_id": "ds", "item_id": "file", "event_ts": "row", "label": "reason"}
    warehouse = make_shop(spark, tmp_path, events=names)
    write_different_types(warehouse)
    with pytest.raises(DropError) as error:
        ingest_events(warehouse, [DAY, NEXT])
    assert "1 × null:user_id (in" in str(error.value)
    assert "1 × wrong_type:item_id (such as 'True' in" in str(error.value)
    assert "with%20space%20%5B1%5D.parquet, row 1)" in str(error.value)
    lenient = make_shop(spark, tmp_path, events=names, max_rejected_share=0.5)
    report = ingest_events(lenient, [DAY, NEXT])
    assert dict(report.rows) == {
        "delivered": 6,
        "loaded": 4,
        "duplicates": 0,
        "quarantined": 2,
        "filtered": 0,
    }
    assert {"Price", "price", "a`b.c d", "_metadata", "clock", "half", "drop_ds"} == set(report.extra_columns)
    both = log_of(lenient, "user_id", "item_id", "string(event_ts)", "label")
    assert both == [
        ("12345678", "7", f"{DAY} 12:00:00", 1.0),
        ("12345678", "x", f"{DAY} 12:00:00", None),
        ("2", "y", f"{DAY} 12:00:00", None),
        ("y", "y", f"{DAY} 12:00:00", 0.0),
    ]
    (kept,) = [row for row in lenient.read("events_quarantine").collect() if row["reason"] == "null:user_id"]
    whole = json.loads(kept["row"])
    assert (whole["ds"], whole["file"], whole["drop_ds"]) == (None, 8.5, "q")
    for day in (NEXT, DAY):  # reading one day alone gives the same rows
        assert ingest_events(lenient, [day]).updated == 0
    assert log_of(lenient, "user_id", "item_id", "string(event_ts)", "label") == both


def test_times_that_are_numbers_need_a_format(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "event_ts": [1709640000]})
    warehouse = make_shop(spark, tmp_path)
    put_file(warehouse, f"ds={DAY}/a.parquet", table)
    with pytest.raises(
        DropError, match=r"unreadable_timestamp \(such as '1709640000' .*ingest.timestamp.format"
    ):
        ingest_events(warehouse, [DAY])
    seconds = make_shop(spark, tmp_path, timestamp={"format": "epoch_seconds"})
    ingest_events(seconds, [DAY])
    assert log_of(seconds) == [("u", "i", f"{DAY} 12:00:00")]


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_text_formats_are_read_and_wrong_types_are_refused(
    spark: SparkSession, tmp_path: Path, suffix: str
) -> None:
    warehouse = lenient_shop(spark, tmp_path, format=suffix)
    path = write_events(
        warehouse,
        [
            (1, 2, f"{DAY}T10:00:00", "s"),
            ("one", 2, f"{DAY}T10:00:00", "s"),
            (1, 2, "yesterday", "s"),
        ],
        suffix=suffix,
    )
    with path.open("a") as file:
        file.write('{"user_id": 1,\n' if suffix == "json" else "1,2,3,4,5,6,7\n")
    manifest = ingest_events(warehouse, [DAY])
    assert manifest.rejected == {"wrong_type:user_id": 1, "unreadable_timestamp": 1, "malformed_row": 1}
    assert log_of(warehouse) == [(1, 2, f"{DAY} 10:00:00")]


def test_arrays_are_kept_and_are_null_on_a_day_without_any(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"kind": "string", "price": "string", "tags": "array<string>", "picture": "array<double>"}
    warehouse = lenient_shop(spark, tmp_path, items={"columns": columns})
    root, items = Path(warehouse.settings.drops), pd.DataFrame({"item_id": [1, 2]})
    shop.write_drop(root, "items", DAY, items.assign(tags=[["a", "b"], None], picture=[[1.0], [0.5, 2.0]]))
    shop.write_drop(root, "items", "2024-03-06", items.assign(tags=None, picture=None))
    for day in (DAY, "2024-03-06"):
        ingest_entity(warehouse, "items", [day])
    read = {}
    for night in ("2024-03-06", "2024-03-07"):
        rows = read_entity(warehouse, "items", night).orderBy("item_id").collect()
        read[night] = [(row["tags"], row["picture"]) for row in rows]
    assert read["2024-03-06"] == [(["a", "b"], [1.0]), (None, [0.5, 2.0])]
    assert read["2024-03-07"] == [(None, None), (None, None)]
    shop.write_drop(root, "items", "2024-03-07", items.assign(tags=["a", None]))
    ingest_entity(warehouse, "items", ["2024-03-07"])
    assert reasons(warehouse) == {"wrong_type:tags": 1}


def test_a_column_that_is_all_null_on_one_day_is_read(empty_shop: Warehouse) -> None:
    """pandas writes such a column without a type, which differs from the text of the other days."""
    write_events(empty_shop, [(1, 2, f"{DAY} 10:00:00", "a")])
    path = Path(empty_shop.settings.drops) / "events" / "ds=2024-03-06" / "part.parquet"
    path.parent.mkdir(parents=True)
    table = pa.table(
        {
            "user_id": pa.array([1], pa.int64()),
            "item_id": pa.array([5], pa.int64()),
            "event_ts": pa.array([pd.Timestamp("2024-03-06 10:00:00")], pa.timestamp("us")),
            "session_id": pa.nulls(1, pa.int32()),
        }
    )
    pq.write_table(table, path)
    assert ingest_events(empty_shop, [DAY, "2024-03-06"]).inserted == 2
