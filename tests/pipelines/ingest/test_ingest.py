"""Ingest: what is kept, what is quarantined and why, and that loading again changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.load_days import ingest_days, ingest_night
from pipelines.ingest.load_entities import ingest_entity
from pipelines.ingest.load_events import ingest_events
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_events, read_log
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import open_shop

DAY = "2024-03-05"


def drop(warehouse: Warehouse, rows: list[tuple[Any, ...]], day: str = DAY, suffix: str = "parquet") -> Path:
    """Write one day's events."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "event_ts", "session_id"])
    if suffix == "parquet":
        frame["event_ts"] = pd.to_datetime(frame["event_ts"])
        frame = frame.astype({"user_id": "Int64", "item_id": "Int64"})
    return shop.write_drop(Path(warehouse.settings.drops), "events", day, frame, suffix)


def stored(warehouse: Warehouse) -> list[tuple[int, int, str]]:
    rows = read_log(warehouse).selectExpr("user_id", "item_id", "string(event_ts)").collect()
    return sorted(tuple(row) for row in rows)


def reasons(warehouse: Warehouse) -> dict[str, int]:
    rows = warehouse.read("events_quarantine").groupBy("reason").count().collect()
    return {row["reason"]: row["count"] for row in rows}


def lenient(spark: SparkSession, root: Path, **ingest: Any) -> Warehouse:
    """A shop that tolerates any share of bad rows."""
    raw = shop.settings(root)
    raw["ingest"] |= {"max_rejected_share": 1.0, **ingest}
    path = root / "settings.yaml"
    import yaml

    from pipelines.settings.settings import load_settings

    path.write_text(yaml.safe_dump(raw))
    return Warehouse(spark, load_settings(path))


def test_bad_rows_are_quarantined_with_a_reason(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = lenient(spark, tmp_path)
    good = [(1, 2, f"{DAY} 10:00:00", "s"), (1, 3, "2024-03-03 23:59:59", "late but within late_days")]
    drop(
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
    assert manifest.rows == rows  # the same row twice is one event, and no fault
    assert manifest.inserted == 2
    assert stored(warehouse) == [(1, 2, f"{DAY} 10:00:00"), (1, 3, "2024-03-03 23:59:59")]
    days = {str(row[0]) for row in warehouse.read("events").select("ds").collect()}
    assert days == {DAY, "2024-03-03"}  # a late event goes to its own day


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_text_formats_and_wrong_types(spark: SparkSession, tmp_path: Path, suffix: str) -> None:
    warehouse = lenient(spark, tmp_path, format=suffix)
    path = drop(
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
    assert stored(warehouse) == [(1, 2, f"{DAY} 10:00:00")]


def test_loading_again_changes_nothing_and_a_corrected_drop_replaces(empty_shop: Warehouse) -> None:
    rows = [(1, 2, f"{DAY} 10:00:00", "a"), (1, 3, f"{DAY} 11:00:00", "a"), (4, 3, f"{DAY} 11:00:00", "b")]
    drop(empty_shop, rows)
    first = ingest_events(empty_shop, [DAY])
    again = ingest_events(empty_shop, [DAY])
    assert again.version == first.version
    assert {k: getattr(again, k) for k in ("inserted", "updated", "deleted")} == dict.fromkeys(
        ("inserted", "updated", "deleted"), 0
    )
    drop(empty_shop, [rows[0], (4, 9, f"{DAY} 12:00:00", "b")])
    corrected = ingest_events(empty_shop, [DAY])
    assert (corrected.inserted, corrected.deleted) == (1, 2)
    assert stored(empty_shop) == [(1, 2, f"{DAY} 10:00:00"), (4, 9, f"{DAY} 12:00:00")]


def test_an_event_that_two_drops_deliver_counts_once(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = lenient(spark, tmp_path)
    drop(warehouse, [(1, 2, f"{DAY} 10:00:00", "a")])
    drop(warehouse, [(1, 2, f"{DAY} 10:00:00", "a"), (1, 2, "2024-03-06 10:00:00", "a")], day="2024-03-06")
    ingest_events(warehouse, [DAY])
    manifest = ingest_events(warehouse, ["2024-03-06"])
    assert manifest.rejected == {}
    assert (manifest.inserted, manifest.updated) == (2, 1)
    assert len(stored(warehouse)) == 2
    assert ingest_events(warehouse, ["2024-03-06"]).inserted == 0


def test_too_many_bad_rows_fail_and_commit_no_event(empty_shop: Warehouse) -> None:
    drop(empty_shop, [(1, 2, f"{DAY} 10:00:00", "a"), (None, 2, f"{DAY} 10:00:00", "a")])
    with pytest.raises(DropError, match=r"50.00% of 2 rows are bad, .*limit|max_rejected_share is 1.00%"):
        ingest_events(empty_shop, [DAY])
    assert not empty_shop.exists("events")
    assert reasons(empty_shop) == {"null:user_id": 1}


def test_a_corrupt_file_is_named_and_nothing_is_committed(empty_shop: Warehouse) -> None:
    path = drop(empty_shop, [(1, 2, f"{DAY} 10:00:00", "a")])
    path.write_bytes(b"PAR1" + b"rubbish" * 40 + b"PAR1")
    with pytest.raises(DropError, match=rf"{path.name}.*deliver it again"):
        ingest_events(empty_shop, [DAY])
    assert not empty_shop.exists("events")


def test_a_corrupt_file_of_items_is_named_too(empty_shop: Warehouse) -> None:
    path = Path(empty_shop.settings.drops) / "items" / f"ds={DAY}" / "part.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1" + b"rubbish" * 40 + b"PAR1")
    with pytest.raises(DropError, match=rf"items: .*{path.name}.*deliver it again"):
        ingest_entity(empty_shop, "items", [DAY])
    assert not empty_shop.exists("items")


def test_a_file_torn_in_the_middle_is_named(empty_shop: Warehouse) -> None:
    """The footer is whole, the pages are not."""
    path = drop(empty_shop, [(u, u % 7, f"{DAY} 10:00:00", f"s{u}") for u in range(3000)])
    data = bytearray(path.read_bytes())
    data[8:4000] = b"\xff" * 3992
    path.write_bytes(data)
    with pytest.raises(DropError, match=rf"{path.name}.*deliver it again"):
        ingest_events(empty_shop, [DAY])


def test_missing_folders_and_empty_days(spark: SparkSession, tmp_path: Path) -> None:
    strict = open_shop(spark, tmp_path)
    with pytest.raises(DropError, match=r"no drop folder .*ds=2024-03-05.*missing_drop: empty"):
        ingest_events(strict, [DAY])
    (Path(strict.settings.drops) / "events" / f"ds={DAY}").mkdir(parents=True)
    assert ingest_events(strict, [DAY]).inserted == 0  # a day without events is a valid day
    assert read_events(strict, "2024-03-06").count() == 0


def test_a_night_loads_days_that_were_left_out(empty_shop: Warehouse) -> None:
    """A night failed for good on a late drop: the next one must not publish from a log with a hole."""
    days = [f"2024-03-0{day}" for day in range(4, 9)]
    for day in days[:3]:
        drop(empty_shop, [(1, 2, f"{day} 10:00:00", "s")], day=day)
    assert ingest_night(empty_shop, days[1]).events.days == [days[0], days[0]]
    assert ingest_night(empty_shop, days[3]).events.days == [days[1], days[2]]
    assert len(stored(empty_shop)) == 3
    drop(empty_shop, [(1, 2, f"{days[4]} 10:00:00", "s")], day=days[4])
    with pytest.raises(DropError, match=rf"no drop folder .*ds={days[3]}: deliver it"):
        ingest_night(empty_shop, "2024-03-09")
    assert len(stored(empty_shop)) == 3
    assert ingest_night(empty_shop, days[1]).events.days == [days[0], days[0]]  # as of then


def test_drops_evolve(empty_shop: Warehouse) -> None:
    root = Path(empty_shop.settings.drops)
    frame = pd.DataFrame(
        {"user_id": [1], "item_id": [2], "event_ts": pd.to_datetime([f"{DAY} 10:00:00"]), "colour": ["red"]}
    )
    shop.write_drop(root, "items", DAY, frame)  # only for its shape: written as events below
    path = root / "events" / f"ds={DAY}" / "part.parquet"
    path.parent.mkdir(parents=True)
    frame.to_parquet(path, coerce_timestamps="us")
    manifest = ingest_events(empty_shop, [DAY])  # extra column, optional session missing
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


def test_a_column_that_is_all_null_for_a_day_is_read_day_by_day(empty_shop: Warehouse) -> None:
    """pandas writes an all-null column without a type; it disagrees with the other days' text."""
    drop(empty_shop, [(1, 2, f"{DAY} 10:00:00", "a")])
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
    import pyarrow.parquet as pq

    pq.write_table(table, path)
    assert ingest_events(empty_shop, [DAY, "2024-03-06"]).inserted == 2


def test_items_hold_as_of_a_day(empty_shop: Warehouse) -> None:
    root = Path(empty_shop.settings.drops)
    for day, rows in {
        "2024-03-01": [(1, "kind-a", "p"), (2, "kind-b", "p")],
        "2024-03-03": [(1, "kind-z", "p"), (3, None, None)],
    }.items():
        shop.write_drop(root, "items", day, pd.DataFrame(rows, columns=["item_id", "kind", "price"]))
    assert ingest_entity(empty_shop, "items", ["2024-03-01", "2024-03-03"]).changed
    assert not ingest_entity(empty_shop, "items", ["2024-03-01", "2024-03-03"]).changed
    assert not ingest_entity(empty_shop, "items", ["2024-03-03"]).changed

    def kinds(night: str) -> dict[int, str | None]:
        return {row["item_id"]: row["kind"] for row in read_entity(empty_shop, "items", night).collect()}

    assert kinds("2024-03-01") == {}
    assert kinds("2024-03-03") == {1: "kind-a", 2: "kind-b"}  # the drop of a day holds from that day on
    assert kinds("2024-03-04") == {1: "kind-z", 2: "kind-b", 3: None}
    assert not ingest_entity(empty_shop, "items", ["2024-03-01"]).changed  # in any order
    drop(empty_shop, [(1, 2, "2024-03-01 10:00:00", "a")], "2024-03-01")
    ingest_days(empty_shop, "2024-03-01", "2024-03-01")
    assert kinds("2024-03-03") == {1: "kind-a", 2: "kind-b"}
    assert kinds("2024-03-04") == {1: "kind-z", 2: "kind-b", 3: None}


def test_arrays_are_kept_and_a_day_without_any_is_null(spark: SparkSession, tmp_path: Path) -> None:
    columns = {"kind": "string", "price": "string", "tags": "array<string>", "picture": "array<double>"}
    warehouse = lenient(spark, tmp_path, items={"columns": columns})
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
