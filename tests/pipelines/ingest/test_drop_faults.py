"""Drops as the world writes them: zones, types, names, dialects, folders; read, or refused in a sentence."""

from __future__ import annotations

import decimal
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from pipelines.build.candidate_bank import read_corpus
from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.load_entities import ingest_entity
from pipelines.ingest.load_events import ingest_events
from pipelines.night import ingest_days, ingest_night
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.settings.settings import load_settings
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_log
from pipelines.store.schemas import ELIGIBLE
from pipelines.store.tables import MissingTable, Warehouse
from synthetic import shop

DAY, NEXT = "2024-03-05", "2024-03-06"


def make(spark: SparkSession, root: Path, ids: str = "string", **ingest: Any) -> Warehouse:
    """A shop without models; `ingest` overrides."""
    raw = shop.settings(root)
    raw["ingest"] = {"default_event_type": "purchase", **ingest}
    raw |= {"models": [], "ids": {"user_id": ids, "item_id": ids}}
    path = root / "settings.yaml"
    path.write_text(yaml.safe_dump(raw))
    return Warehouse(spark, load_settings(path))


def put(warehouse: Warehouse, name: str, data: str | bytes | pa.Table, source: str = "events") -> Path:
    """A file under `raw/<source>`."""
    path = Path(warehouse.settings.drops) / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, pa.Table):
        pq.write_table(data, path)
    else:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def log_of(warehouse: Warehouse, *columns: str) -> list[tuple[Any, ...]]:
    rows = read_log(warehouse).selectExpr(*(columns or ("user_id", "item_id", "string(event_ts)")))
    return sorted(map(tuple, rows.collect()))


def bad_of(warehouse: Warehouse) -> dict[str, int]:
    return Counter(row["reason"] for row in warehouse.read("events_quarantine").collect())


def test_a_log_delivered_by_local_day_loads_whole(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make(spark, tmp_path, format="csv", source_timezone="Asia/Tokyo", late_days=0)
    put(
        warehouse,
        f"ds={DAY}/a.csv",
        "user_id,item_id,event_ts\n"
        f"u1,a,{DAY} 00:30:00\n"  # the day before in UTC
        f"u2,a,{DAY} 23:30:00\n"
        f"u3,a,{DAY}T12:00:00Z\n"  # says its own zone
        f"u4,a,{DAY}T01:00:00+09:00\n",
    )
    assert ingest_events(warehouse, [DAY])["rejected"] == {}
    assert log_of(warehouse) == [
        ("u1", "a", "2024-03-04 15:30:00"),
        ("u2", "a", "2024-03-05 14:30:00"),
        ("u3", "a", "2024-03-05 12:00:00"),
        ("u4", "a", "2024-03-04 16:00:00"),
    ]
    by_utc = make(
        spark, tmp_path, format="csv", source_timezone="Asia/Tokyo", folder_timezone="UTC", late_days=0
    )
    with pytest.raises(DropError, match=r"2 × too_late \(such as '2024-03-04 15:30:00' in .*a.csv, line 2\)"):
        ingest_events(by_utc, [DAY])


def test_parquet_of_any_type_reads_as_one_log(spark: SparkSession, tmp_path: Path) -> None:
    """Types that change from file to file, names that are ours, columns that Spark can't read."""
    names = {"user_id": "ds", "item_id": "file", "event_ts": "row", "label": "reason"}
    warehouse = make(spark, tmp_path, events=names)
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
    put(warehouse, f"ds={DAY}/b.parquet", one)
    put(warehouse, f"ds={DAY}/a.parquet", two)
    put(warehouse, f"ds={NEXT}/with space [1].parquet", third)
    int96 = pa.table({"ds": ["y"], "file": ["y"], "row": pa.array([noon], pa.timestamp("us")), "reason": [0]})
    pq.write_table(
        int96, put(warehouse, f"ds={NEXT}/i96.parquet", int96), use_deprecated_int96_timestamps=True
    )
    with pytest.raises(DropError) as error:
        ingest_events(warehouse, [DAY, NEXT])
    assert "1 × null:user_id (in" in str(error.value)
    assert "1 × wrong_type:item_id (such as 'True' in" in str(error.value)
    assert "with%20space%20%5B1%5D.parquet, row 1)" in str(error.value)
    lenient = make(spark, tmp_path, events=names, max_rejected_share=0.5)
    report = ingest_events(lenient, [DAY, NEXT])
    assert report["rows"] == {"delivered": 6, "loaded": 4, "duplicates": 0, "quarantined": 2, "filtered": 0}
    assert {"Price", "price", "a`b.c d", "_metadata", "clock", "half", "drop_ds"} == set(
        report["extra_columns"]
    )
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
    for day in (NEXT, DAY):  # one way of reading, whatever the range
        assert ingest_events(lenient, [day])["updated"] == 0
    assert log_of(lenient, "user_id", "item_id", "string(event_ts)", "label") == both


def test_numbers_as_times_need_a_format(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "event_ts": [1709640000]})
    warehouse = make(spark, tmp_path)
    put(warehouse, f"ds={DAY}/a.parquet", table)
    with pytest.raises(
        DropError, match=r"unreadable_timestamp \(such as '1709640000' .*ingest.timestamp.format"
    ):
        ingest_events(warehouse, [DAY])
    seconds = make(spark, tmp_path, timestamp={"format": "epoch_seconds"})
    ingest_events(seconds, [DAY])
    assert log_of(seconds) == [("u", "i", f"{DAY} 12:00:00")]


def test_every_file_is_read_named_or_ignored_by_a_rule(spark: SparkSession, tmp_path: Path) -> None:
    """And all faults of all drops are named at once."""
    csv = {"delimiter": ";"}
    warehouse = make(spark, tmp_path, format="csv", csv=csv, encoding="latin-1")
    head = "user_id;event_ts;item_id;note\n"
    put(
        warehouse,
        f"ds={DAY}/a.csv",
        (head + f'José;{DAY} 10:00;1;"two\nlines; ""quoted"""\n').encode("latin-1"),
    )
    put(warehouse, f"ds={DAY}/sub/folder/b.csv.gz", gzip.compress((head + f"v;{DAY};2;\n").encode()))
    put(warehouse, f"ds={DAY}/c.csv", f"event_ts;session_id;user_id;item_id\n{DAY};s;w;3\n")
    ignored = ["_SUCCESS", ".hidden", "a.csv.md5", "_temporary/0/x.csv"]
    for name in ignored:
        put(warehouse, f"ds={DAY}/{name}", "rubbish")
    report = ingest_events(warehouse, [DAY])
    assert [row[0] for row in log_of(warehouse, "user_id", "session_id")] == ["José", "v", "w"]
    assert report["extra_columns"] == ["note"]
    assert sorted(path.split(f"ds={DAY}/")[1] for path in report["ignored_files"]) == sorted(ignored)
    put(warehouse, f"ds={NEXT}/packed.zip", "PK")
    put(warehouse, f"ds={NEXT}/torn.csv.gz", gzip.compress(head.encode() * 9000)[:-40])
    put(warehouse, f"ds={NEXT}/other.csv", "user_id;when\n1;2\n")
    put(warehouse, f"ds={NEXT}/bad.csv", head + f"u;{NEXT};;x\nu;never;1;x\n")
    put(warehouse, "ds=latest/a.csv", head)
    put(warehouse, "2024-03-06/a.csv", head)
    with pytest.raises(DropError) as error:
        ingest_events(warehouse, [DAY, NEXT, "2024-03-07"])
    for said in (
        "packed.zip: this file is packed in a way that is not read (.zip)",
        "torn.csv.gz: this file is broken (",
        "other.csv: the required column 'item_id' (our item_id) is missing; the file has ['user_id', 'when']",
        "1 × null:item_id (such as '' in",
        "1 × unreadable_timestamp (such as 'never' in",
        "bad.csv, line 3)",
        "ds=latest: this folder is no day's drop; name folders ds=YYYY-MM-DD",
        "events/2024-03-06: this folder is no day's drop",
        "no drop folder",
    ):
        assert said in str(error.value)
    assert "Traceback" not in str(error.value)


ROWS = [
    ("u", "a", f"{DAY}", "s", 1, "ok", 1),
    ("u", "a", f"{DAY}", "s", 2, "ok", 2),  # bought again: another line of the same order
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
def test_repetition_is_told_from_redelivery(
    spark: SparkSession, tmp_path: Path, events: dict[str, Any], rows: int, counts: dict[str, int]
) -> None:
    where = "status <> 'cancelled' AND user_id IS NOT NULL"
    warehouse = make(spark, tmp_path, events={"where": where, **events}, max_rejected_share=0.7)
    names = ["user_id", "item_id", "event_ts", "session_id", "line", "status", "pieces"]
    put(warehouse, f"ds={DAY}/a.parquet", pa.Table.from_pandas(pd.DataFrame(ROWS, columns=names)))
    report = ingest_events(warehouse, [DAY])
    assert len(log_of(warehouse)) == rows
    assert counts.items() <= report["rows"].items()
    assert report["rows"]["delivered"] == len(ROWS) == sum(report["rows"].values()) - len(ROWS)
    assert ingest_events(warehouse, [DAY])["inserted"] == 0
    if events == {"key": ["line"]}:
        for other in ({}, {"key": ["status"]}):
            changed = make(spark, tmp_path, events=other, max_rejected_share=0.7)
            with pytest.raises(MissingTable, match="loaded with another key; restore it"):
                ingest_events(changed, [DAY])
    wrongs = {
        "status >": "no condition in SQL",
        "colour = 1": "the column 'colour', which `where` needs, is missing",
        "status": "is not a boolean",
        "rand() > 2": "something else each time",
        "row_number() OVER (ORDER BY line) = 1": "does not fit the columns",
        "nonsense(status)": "does not fit the columns",
    }
    for wrong, message in wrongs.items() if not events else ():
        with pytest.raises((SettingsError, DropError), match=message):
            ingest_events(make(spark, tmp_path, events={"where": wrong}), [DAY])


def test_a_lower_late_days_and_a_correction(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make(spark, tmp_path, late_days=3)
    early = pa.table({"user_id": ["u", "v"], "item_id": ["i", "i"], "event_ts": ["2024-03-02", DAY]})
    put(warehouse, f"ds={DAY}/a.parquet", early)
    ingest_events(warehouse, [DAY])
    put(warehouse, f"ds={DAY}/a.parquet", early.slice(1))
    ingest_events(make(spark, tmp_path, late_days=0), [DAY])
    assert [row[0] for row in log_of(warehouse)] == ["v"]


def test_names_of_item_columns_are_the_users_and_withdrawn_items_are_not_eligible(
    spark: SparkSession, tmp_path: Path
) -> None:
    names = [
        "file",
        "row",
        "reason",
        "ds",
        "drop_ds",
        "valid_from",
        "eligible",
        "recent_count",
        "fingerprint",
    ]
    columns = dict.fromkeys(names, "string")
    source = {"reason": "Some `odd` name, with.dots"}
    items = {"columns": columns, "source": source, "absent": "remove"}
    warehouse = make(spark, tmp_path, items=items)
    one = {
        source.get(name, name): [f"{name}-1", f"{name}-2", 123.0 if name == "ds" else None] for name in names
    }
    one["ds"] = [1.0, 2.0, 123.0]
    put(warehouse, f"ds={DAY}/a.parquet", pa.table({"item_id": ["1", "2", "3"], **one}), "items")
    two = pa.table({"item_id": ["1", "3"], **{name: [values[0], values[2]] for name, values in one.items()}})
    put(warehouse, f"ds={NEXT}/a.parquet", two, "items")
    bought = pa.table({"user_id": ["u"] * 3, "item_id": ["1", "2", "777"], "event_ts": [DAY] * 3})
    put(warehouse, f"ds={DAY}/a.parquet", bought)
    ingest_entity(warehouse, "items", [DAY, NEXT])
    ingest_events(warehouse, [DAY])
    stored = {row["item_id"]: row.asDict() for row in read_entity(warehouse, "items", NEXT).collect()}
    for name in names:
        assert stored["2"][name] == ("2" if name == "ds" else f"{name}-2")
    policies = [Policy(), Policy(name="some", eligible="eligible = 'eligible-1' AND ds = '1'")]
    found = {}
    for night in (NEXT, "2024-03-07"):
        versions = (warehouse.version("events"), warehouse.version("items"))
        corpus = read_corpus(warehouse, night, versions, policies, 28).select("item_id", ELIGIBLE).collect()
        found[night] = {row[0]: row[1] for row in corpus}
    assert found[NEXT] == {"1": 3, "2": 1, "3": 1, "777": 1}
    # Item 2 is withdrawn, though it was bought; 777 was never listed, and is judged by the policy alone.
    assert found["2024-03-07"] == {"1": 3, "2": 0, "3": 1, "777": 1}
    with pytest.raises(
        SettingsError, match=r"'unit price' is not letters.*source: \{my_name: 'unit price'\}"
    ):
        make(spark, tmp_path, items={"columns": {"unit price": "string"}})


def test_what_was_loaded_stays_when_the_landing_zone_is_emptied(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make(spark, tmp_path)
    for day in (DAY, NEXT):
        put(
            warehouse,
            f"ds={day}/a.parquet",
            pa.table({"user_id": [day], "item_id": ["i"], "event_ts": [day]}),
        )
    ingest_days(warehouse, DAY, NEXT)
    for path in Path(warehouse.settings.drops).rglob("*.parquet"):
        path.unlink()
    (Path(warehouse.settings.drops) / "events" / f"ds={DAY}").rmdir()
    report = ingest_days(warehouse, DAY, NEXT)["events"]
    assert (report["deleted"], report["rows"]["delivered"]) == (0, 0)
    assert [row[0] for row in log_of(warehouse)] == [DAY, NEXT]


def test_tables_of_an_earlier_version_open_and_take_corrections(spark: SparkSession, tmp_path: Path) -> None:
    """Without the columns that say what supersedes a row, and with other names for validity."""
    warehouse = make(spark, tmp_path, items={"columns": {"kind": "string"}})
    old = (
        "user_id string, item_id string, event_ts timestamp, event_type string, session_id string, "
        "label double, drop_ds date, ds date"
    )
    rows = [
        (user, "i", f"{day} 10:00:00", "purchase", "", None, day, day)
        for user, day in (("u", DAY), ("v", NEXT))
    ]
    columns = [part.split(" ")[0] for part in old.split(", ")]
    text = spark.createDataFrame(rows, ", ".join(f"{name} string" for name in columns))
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
    frame = spark.createDataFrame(versions, "item_id string, kind string, valid_from string, valid_to string")
    dates = frame.selectExpr(
        "item_id", "kind", *(f"cast({n} AS date) AS {n}" for n in ("valid_from", "valid_to"))
    )
    dates.write.format("delta").save(warehouse.path("items"))
    assert [row[0] for row in log_of(warehouse)] == ["u", "v"]
    put(
        warehouse,
        f"ds={NEXT}/a.parquet",
        pa.table({"user_id": ["w", "u"], "item_id": ["i"] * 2, "event_ts": [NEXT, f"{DAY} 10:00"]}),
    )
    put(warehouse, "ds=2024-03-04/a.parquet", pa.table({"item_id": ["1"], "kind": ["c"]}), "items")
    ingest_events(warehouse, [NEXT])
    assert log_of(warehouse, "user_id", "string(drop_ds)") == [("u", NEXT), ("w", NEXT)]
    ingest_entity(warehouse, "items", ["2024-03-04"])
    found = {
        night: {row[0]: row[1] for row in read_entity(warehouse, "items", night).collect()}
        for night in ("2024-03-03", "2024-03-06")
    }
    assert found == {"2024-03-03": {"1": "a", "2": "a"}, "2024-03-06": {"1": "c", "2": "a"}}


def test_a_filter_does_not_hide_what_is_broken(spark: SparkSession, tmp_path: Path) -> None:
    where = "status = 'ok' AND double(price) > 1 AND row IS NULL"
    warehouse = make(spark, tmp_path, format="json", events={"where": where}, max_rejected_share=0.7)
    good = {"user_id": "u", "item_id": "i", "event_ts": DAY, "status": "ok", "price": 1.5, "row": None}
    lines = [json.dumps(good), json.dumps({**good, "price": 0.5}), "{torn", '{"user_id": 1, "user_id": 2}']
    put(warehouse, f"ds={DAY}/a.json", "\n".join(lines))
    counts = ingest_events(warehouse, [DAY])["rows"]
    assert counts == {"delivered": 4, "loaded": 1, "duplicates": 0, "quarantined": 2, "filtered": 1}
    # A load that is refused leaves the rows of what was loaded before.
    put(warehouse, f"ds={DAY}/a.json", "\n".join(lines[2:]))
    with pytest.raises(DropError, match=r"100\.00% of 2 rows are bad"):
        ingest_events(warehouse, [DAY])
    kept = warehouse.read("events_quarantine").groupBy("loaded").count().collect()
    assert {row["loaded"]: row["count"] for row in kept} == {True: 2, False: 2}
    put(warehouse, f"ds={DAY}/a.json", lines[0])
    assert ingest_events(warehouse, [DAY])["rows"]["loaded"] == 1
    assert bad_of(warehouse) == {}


def test_files_that_are_not_whole_are_named(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make(spark, tmp_path, format="csv")
    text = f"user_id,item_id,event_ts\nu,i,{DAY}\n"
    put(warehouse, f"ds={DAY}/good.csv", text)
    put(warehouse, f"ds={DAY}/empty.csv", "")
    put(warehouse, f"ds={DAY}/put.csv._COPYING_", text)
    inner = put(warehouse, f"ds={DAY}/_temporary/0/ds={DAY}/inner.csv", text)
    (inner.parent.parent.parent.parent / "link.csv").symlink_to(tmp_path / "unmounted.csv")
    with pytest.raises(DropError) as error:
        ingest_events(warehouse, [DAY])
    for said in (
        "empty.csv: this file has not even a header line",
        "put.csv._COPYING_: this file is being written",
        "link.csv: this link leads to no file",
    ):
        assert said in str(error.value)
    assert "inner.csv" not in str(error.value)


def test_a_drop_that_comes_after_its_day_was_loaded_as_empty_is_loaded(
    spark: SparkSession, tmp_path: Path
) -> None:
    warehouse = make(spark, tmp_path, missing_drop="empty")
    ingest_night(warehouse, NEXT)
    assert ingest_night(warehouse, "2024-03-07")["events"]["days"] == [NEXT, NEXT]
    put(warehouse, f"ds={DAY}/a.parquet", pa.table({"user_id": ["u"], "item_id": ["i"], "event_ts": [DAY]}))
    assert ingest_night(warehouse, "2024-03-08")["events"]["days"] == [DAY, "2024-03-07"]
    assert len(log_of(warehouse)) == 1
    assert ingest_night(warehouse, "2024-03-08")["events"]["days"] == ["2024-03-07"] * 2
