"""Which rows are loaded, which are quarantined and why, and which days a night loads."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.load_days import ingest_night
from pipelines.ingest.load_events import ingest_events
from pipelines.store.event_log import read_events
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import open_shop
from tests.pipelines.ingest.drops import (
    DAY,
    lenient_shop,
    log_of,
    reasons,
    write_events,
)


def test_bad_rows_are_quarantined_with_a_reason(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = lenient_shop(spark, tmp_path)
    good = [(1, 2, f"{DAY} 10:00:00", "s"), (1, 3, "2024-03-03 23:59:59", "late but within late_days")]
    write_events(
        warehouse,
        [
            *good,
            (None, 2, f"{DAY} 10:00:00", "s"),
            (1, None, f"{DAY} 10:00:00", "s"),
            (1, 2, None, "s"),
            (1, 2, "2024-03-06 00:00:00", "future"),
            (1, 2, "2024-03-01 23:59:59", "too late"),
            (1, 2, f"{DAY} 10:00:00", "s"),
        ],
    )
    manifest = ingest_events(warehouse, [DAY])
    expected = {
        "null:user_id": 1, "null:item_id": 1, "null:event_ts": 1, "future_timestamp": 1, "too_late": 1,
    }  # fmt: skip
    assert manifest.rejected == expected == reasons(warehouse)
    rows = {"delivered": 8, "loaded": 2, "duplicates": 1, "quarantined": 5, "filtered": 0}
    assert dict(manifest.rows) == rows  # a row that comes twice is one event and no fault
    assert manifest.inserted == 2
    assert log_of(warehouse) == [(1, 2, f"{DAY} 10:00:00"), (1, 3, "2024-03-03 23:59:59")]
    days = {str(row[0]) for row in warehouse.read("events").select("ds").collect()}
    assert days == {DAY, "2024-03-03"}  # a late event belongs to its own day


def test_a_missing_folder_fails_and_an_empty_one_is_a_day_without_events(
    spark: SparkSession, tmp_path: Path
) -> None:
    strict = open_shop(spark, tmp_path)
    with pytest.raises(DropError, match=r"no drop folder .*ds=2024-03-05.*missing_drop: empty"):
        ingest_events(strict, [DAY])
    (Path(strict.settings.drops) / "events" / f"ds={DAY}").mkdir(parents=True)
    assert ingest_events(strict, [DAY]).inserted == 0  # a day may have no events
    assert read_events(strict, "2024-03-06").count() == 0


def test_a_night_loads_days_that_earlier_nights_left_out(empty_shop: Warehouse) -> None:
    """After a night failed because a drop was late, the next one must not publish from an incomplete log."""
    days = [f"2024-03-0{day}" for day in range(4, 9)]
    for day in days[:3]:
        write_events(empty_shop, [(1, 2, f"{day} 10:00:00", "s")], day=day)
    assert ingest_night(empty_shop, days[1]).events.days == (days[0], days[0])
    assert ingest_night(empty_shop, days[3]).events.days == (days[1], days[2])
    assert len(log_of(empty_shop)) == 3
    write_events(empty_shop, [(1, 2, f"{days[4]} 10:00:00", "s")], day=days[4])
    with pytest.raises(DropError, match=rf"no drop folder .*ds={days[3]}: deliver it"):
        ingest_night(empty_shop, "2024-03-09")
    assert len(log_of(empty_shop)) == 3
    assert ingest_night(empty_shop, days[1]).events.days == (
        days[0],
        days[0],
    )  # the days before that night only


def test_the_columns_of_drops_may_change_from_day_to_day(empty_shop: Warehouse) -> None:
    root = Path(empty_shop.settings.drops)
    frame = pd.DataFrame(
        {"user_id": [1], "item_id": [2], "event_ts": pd.to_datetime([f"{DAY} 10:00:00"]), "colour": ["red"]}
    )
    shop.write_drop(root, "items", DAY, frame)  # this file is not read: the events are written below
    path = root / "events" / f"ds={DAY}" / "part.parquet"
    path.parent.mkdir(parents=True)
    frame.to_parquet(path, coerce_timestamps="us")
    manifest = ingest_events(empty_shop, [DAY])  # there is an extra column and no session
    assert manifest.extra_columns == ["colour"]
    assert manifest.inserted == 1
    frame.drop(columns="item_id").to_parquet(path, coerce_timestamps="us")
    with pytest.raises(DropError, match=r"required column 'item_id' \(our item_id\) is missing"):
        ingest_events(empty_shop, [DAY])
    frame.astype({"item_id": float}).to_parquet(path, coerce_timestamps="us")
    assert ingest_events(empty_shop, [DAY]).updated == 0  # 2.0 is the item 2
    frame.assign(item_id=2.5).to_parquet(path, coerce_timestamps="us")
    with pytest.raises(DropError, match=r"1 × wrong_type:item_id \(such as '2.5' in .*part.parquet, row 1\)"):
        ingest_events(empty_shop, [DAY])
