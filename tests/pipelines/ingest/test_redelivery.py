"""Days that are delivered again: late, corrected, or after their folders were emptied."""

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
from pipelines.settings.base import SettingsError
from pipelines.store.catalogue import read_entity
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable
from tests.pipelines.ingest.drops import (
    DAY,
    NEXT,
    lenient_shop,
    log_of,
    make_shop,
    put_file,
    write_events,
)

ROWS = [
    ("u", "a", f"{DAY}", "s", 1, "ok", 1),
    ("u", "a", f"{DAY}", "s", 2, "ok", 2),  # bought again in another line of the same order
    ("u", "a", f"{DAY}", "s", 2, "ok", 2),  # the same line delivered twice
    ("u", "b", f"{DAY}", "s", 3, "cancelled", 1),
    (None, "c", f"{DAY}", "s", 4, "ok", 1),
]


@pytest.mark.parametrize(
    ("events", "rows", "counts"),
    [
        ({"key": ["line"]}, 2, {"duplicates": 1, "filtered": 2}),
        ({"count": "pieces"}, 2, {"duplicates": 1, "quarantined": 1, "filtered": 2}),
        ({"identical": "each"}, 3, {"duplicates": 0, "filtered": 2}),
        ({}, 1, {"duplicates": 2, "filtered": 2}),
    ],
)
def test_repeated_events_are_distinguished_from_redelivered_ones(
    spark: SparkSession, tmp_path: Path, events: dict[str, Any], rows: int, counts: dict[str, int]
) -> None:
    where = "status <> 'cancelled' AND user_id IS NOT NULL"
    warehouse = make_shop(spark, tmp_path, events={"where": where, **events}, max_rejected_share=0.7)
    names = ["user_id", "item_id", "event_ts", "session_id", "line", "status", "pieces"]
    put_file(warehouse, f"ds={DAY}/a.parquet", pa.Table.from_pandas(pd.DataFrame(ROWS, columns=names)))
    report = ingest_events(warehouse, [DAY])
    assert len(log_of(warehouse)) == rows
    assert counts.items() <= dict(report.rows).items()
    assert report.rows.delivered == len(ROWS) == sum(dict(report.rows).values()) - len(ROWS)
    assert ingest_events(warehouse, [DAY]).inserted == 0
    if events == {"key": ["line"]}:
        for other in ({}, {"key": ["status"]}):
            changed = make_shop(spark, tmp_path, events=other, max_rejected_share=0.7)
            with pytest.raises(MissingTable, match="loaded with another key; restore it"):
                ingest_events(changed, [DAY])
    wrongs = {
        "status >": "not a condition in SQL",
        "colour = 1": "the column 'colour', which `where` needs, is missing",
        "status": "is not a boolean",
        "rand() > 2": "differ each time",
        "row_number() OVER (ORDER BY line) = 1": "does not fit the columns",
        "nonsense(status)": "does not fit the columns",
    }
    for wrong, message in wrongs.items() if not events else ():
        with pytest.raises((SettingsError, DropError), match=message):
            ingest_events(make_shop(spark, tmp_path, events={"where": wrong}), [DAY])


def test_loading_again_changes_nothing_and_a_corrected_drop_replaces_the_old_one(
    empty_shop: Warehouse,
) -> None:
    rows = [(1, 2, f"{DAY} 10:00:00", "a"), (1, 3, f"{DAY} 11:00:00", "a"), (4, 3, f"{DAY} 11:00:00", "b")]
    write_events(empty_shop, rows)
    first = ingest_events(empty_shop, [DAY])
    again = ingest_events(empty_shop, [DAY])
    assert again.version == first.version
    assert {k: getattr(again, k) for k in ("inserted", "updated", "deleted")} == dict.fromkeys(
        ("inserted", "updated", "deleted"), 0
    )
    write_events(empty_shop, [rows[0], (4, 9, f"{DAY} 12:00:00", "b")])
    corrected = ingest_events(empty_shop, [DAY])
    assert (corrected.inserted, corrected.deleted) == (1, 2)
    assert log_of(empty_shop) == [(1, 2, f"{DAY} 10:00:00"), (4, 9, f"{DAY} 12:00:00")]


def test_an_event_that_two_drops_deliver_counts_once(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = lenient_shop(spark, tmp_path)
    write_events(warehouse, [(1, 2, f"{DAY} 10:00:00", "a")])
    write_events(
        warehouse, [(1, 2, f"{DAY} 10:00:00", "a"), (1, 2, "2024-03-06 10:00:00", "a")], day="2024-03-06"
    )
    ingest_events(warehouse, [DAY])
    manifest = ingest_events(warehouse, ["2024-03-06"])
    assert manifest.rejected == {}
    assert (manifest.inserted, manifest.updated) == (2, 1)
    assert len(log_of(warehouse)) == 2
    assert ingest_events(warehouse, ["2024-03-06"]).inserted == 0


def test_a_correction_removes_an_event_that_a_lower_late_days_would_refuse(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = make_shop(spark, tmp_path, late_days=3)
    early = pa.table({"user_id": ["u", "v"], "item_id": ["i", "i"], "event_ts": ["2024-03-02", DAY]})
    put_file(warehouse, f"ds={DAY}/a.parquet", early)
    ingest_events(warehouse, [DAY])
    put_file(warehouse, f"ds={DAY}/a.parquet", early.slice(1))
    ingest_events(make_shop(spark, tmp_path, late_days=0), [DAY])
    assert [row[0] for row in log_of(warehouse)] == ["v"]


def test_loaded_rows_remain_when_the_landing_zone_is_emptied(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make_shop(spark, tmp_path)
    for day in (DAY, NEXT):
        put_file(
            warehouse,
            f"ds={day}/a.parquet",
            pa.table({"user_id": [day], "item_id": ["i"], "event_ts": [day]}),
        )
    ingest_days(warehouse, DAY, NEXT)
    for path in Path(warehouse.settings.drops).rglob("*.parquet"):
        path.unlink()
    (Path(warehouse.settings.drops) / "events" / f"ds={DAY}").rmdir()
    report = ingest_days(warehouse, DAY, NEXT).events
    assert (report.deleted, report.rows.delivered) == (0, 0)
    assert [row[0] for row in log_of(warehouse)] == [DAY, NEXT]


def write_old_tables(warehouse: Warehouse) -> None:
    """Write `events` and `items` as earlier versions did.

    They lack the columns about superseded rows, and name the validity of items differently.
    """
    old = (
        "user_id string, item_id string, event_ts timestamp, event_type string, session_id string, "
        "label double, drop_ds date, ds date"
    )
    rows = [
        (user, "i", f"{day} 10:00:00", "purchase", "", None, day, day)
        for user, day in (("u", DAY), ("v", NEXT))
    ]
    columns = [part.split(" ")[0] for part in old.split(", ")]
    text = warehouse.spark.createDataFrame(rows, ", ".join(f"{name} string" for name in columns))
    text.selectExpr(
        *(f"cast({part.replace(' ', ' AS ')}) AS {part.split(' ')[0]}" for part in old.split(", "))
    ).write.format("delta").option("delta.enableChangeDataFeed", "true").partitionBy("ds").save(
        warehouse.path("events")
    )
    versions = [
        ("1", "a", "2024-03-01", "2024-03-04"),
        ("1", "b", "2024-03-04", None),
        ("2", "a", "2024-03-01", None),
    ]
    frame = warehouse.spark.createDataFrame(
        versions, "item_id string, kind string, valid_from string, valid_to string"
    )
    dates = frame.selectExpr(
        "item_id", "kind", *(f"cast({n} AS date) AS {n}" for n in ("valid_from", "valid_to"))
    )
    dates.write.format("delta").save(warehouse.path("items"))


def test_tables_of_an_earlier_version_can_be_read_and_corrected(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make_shop(spark, tmp_path, items={"columns": {"kind": "string"}})
    write_old_tables(warehouse)
    assert [row[0] for row in log_of(warehouse)] == ["u", "v"]
    put_file(
        warehouse,
        f"ds={NEXT}/a.parquet",
        pa.table({"user_id": ["w", "u"], "item_id": ["i"] * 2, "event_ts": [NEXT, f"{DAY} 10:00"]}),
    )
    put_file(warehouse, "ds=2024-03-04/a.parquet", pa.table({"item_id": ["1"], "kind": ["c"]}), "items")
    ingest_events(warehouse, [NEXT])
    assert log_of(warehouse, "user_id", "string(drop_ds)") == [("u", NEXT), ("w", NEXT)]
    ingest_entity(warehouse, "items", ["2024-03-04"])
    found = {
        night: {row[0]: row[1] for row in read_entity(warehouse, "items", night).collect()}
        for night in ("2024-03-03", "2024-03-06")
    }
    assert found == {"2024-03-03": {"1": "a", "2": "a"}, "2024-03-06": {"1": "c", "2": "a"}}


def test_a_drop_that_arrives_after_its_day_was_loaded_as_empty_is_loaded(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = make_shop(spark, tmp_path, missing_drop="empty")
    ingest_night(warehouse, NEXT)
    assert ingest_night(warehouse, "2024-03-07").events.days == (NEXT, NEXT)
    put_file(
        warehouse, f"ds={DAY}/a.parquet", pa.table({"user_id": ["u"], "item_id": ["i"], "event_ts": [DAY]})
    )
    assert ingest_night(warehouse, "2024-03-08").events.days == (DAY, "2024-03-07")
    assert len(log_of(warehouse)) == 1
    assert ingest_night(warehouse, "2024-03-08").events.days == ("2024-03-07",) * 2


def test_a_fault_of_one_source_commits_nothing_of_any(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make_shop(spark, tmp_path, items={"columns": {"kind": "string"}}, max_rejected_share=0.5)
    put_file(
        warehouse,
        f"ds={DAY}/a.parquet",
        pa.table({"user_id": ["u", None], "item_id": ["i", "i"], "event_ts": [DAY, DAY]}),
    )
    put_file(warehouse, f"ds={DAY}/a.parquet", pa.table({"user_id": ["u"]}), "users")
    torn = put_file(warehouse, f"ds={DAY}/a.parquet", b"PAR1" + b"rubbish" * 40 + b"PAR1", "items")
    with pytest.raises(DropError, match=r"items: .*a\.parquet(.|\n)*nothing was committed"):
        ingest_days(warehouse, DAY, DAY)
    assert not any(warehouse.exists(name) for name in ("events", "items", "users"))
    assert warehouse.read("loaded_drops").count() == 0
    aside = [tuple(row) for row in warehouse.read("events_quarantine").select("reason", "loaded").collect()]
    assert aside == [("null:user_id", False)]
    put_file(warehouse, f"ds={DAY}/{torn.name}", pa.table({"item_id": ["i"], "kind": ["a"]}), "items")
    ingest_days(warehouse, DAY, DAY)
    assert [row[0] for row in log_of(warehouse)] == ["u"]
    assert [row["kind"] for row in read_entity(warehouse, "items", NEXT).collect()] == ["a"]
    aside = [tuple(row) for row in warehouse.read("events_quarantine").select("reason", "loaded").collect()]
    assert aside == [("null:user_id", True)]


def test_a_catalogue_that_came_late_is_loaded_by_the_next_night(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make_shop(spark, tmp_path, items={"columns": {"kind": "string"}})
    for day in (DAY, NEXT):
        put_file(
            warehouse,
            f"ds={day}/a.parquet",
            pa.table({"user_id": ["u"], "item_id": ["i"], "event_ts": [day]}),
        )
    assert ingest_night(warehouse, NEXT).items is None
    put_file(warehouse, f"ds={DAY}/a.parquet", pa.table({"item_id": ["i"], "kind": ["late"]}), "items")
    assert ingest_night(warehouse, "2024-03-07").items.days == (DAY, DAY)
    assert [row["kind"] for row in read_entity(warehouse, "items", NEXT).collect()] == ["late"]
    assert ingest_night(warehouse, "2024-03-07").items is None
