"""Files that can't be read and bad rows: a sentence names each, and no good row is committed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.ingest.drop_faults import DropError
from pipelines.ingest.load_entities import ingest_entity
from pipelines.ingest.load_events import ingest_events
from pipelines.store.tables import Warehouse
from tests.pipelines.ingest.drops import (
    DAY,
    NEXT,
    log_of,
    make_shop,
    put_file,
    reasons,
    write_events,
)


def test_every_file_is_read_named_or_ignored_by_a_rule(spark: SparkSession, tmp_path: Path) -> None:
    """One message names all faults of all drops."""
    csv = {"delimiter": ";"}
    warehouse = make_shop(spark, tmp_path, format="csv", csv=csv, encoding="latin-1")
    head = "user_id;event_ts;item_id;note\n"
    put_file(
        warehouse,
        f"ds={DAY}/a.csv",
        (head + f'José;{DAY} 10:00;1;"two\nlines; ""quoted"""\n').encode("latin-1"),
    )
    put_file(warehouse, f"ds={DAY}/sub/folder/b.csv.gz", gzip.compress((head + f"v;{DAY};2;\n").encode()))
    put_file(warehouse, f"ds={DAY}/c.csv", f"event_ts;session_id;user_id;item_id\n{DAY};s;w;3\n")
    ignored = ["_SUCCESS", ".hidden", "a.csv.md5", "_temporary/0/x.csv"]
    for name in ignored:
        put_file(warehouse, f"ds={DAY}/{name}", "rubbish")
    report = ingest_events(warehouse, [DAY])
    assert [row[0] for row in log_of(warehouse, "user_id", "session_id")] == ["José", "v", "w"]
    assert report.extra_columns == ["note"]
    assert sorted(path.split(f"ds={DAY}/")[1] for path in report.ignored_files) == sorted(ignored)
    put_file(warehouse, f"ds={NEXT}/packed.zip", "PK")
    put_file(warehouse, f"ds={NEXT}/torn.csv.gz", gzip.compress(head.encode() * 9000)[:-40])
    put_file(warehouse, f"ds={NEXT}/other.csv", "user_id;when\n1;2\n")
    put_file(warehouse, f"ds={NEXT}/bad.csv", head + f"u;{NEXT};;x\nu;never;1;x\n")
    put_file(warehouse, "ds=latest/a.csv", head)
    put_file(warehouse, "2024-03-06/a.csv", head)
    with pytest.raises(DropError) as error:
        ingest_events(warehouse, [DAY, NEXT, "2024-03-07"])
    for said in (
        "packed.zip: this file is packed in a way that is not read (.zip)",
        "torn.csv.gz: this file is broken (",
        "other.csv: the required column 'item_id' (our item_id) is missing; the file has ['user_id', 'when']",
        "1 × null:item_id (such as '' in",
        "1 × unreadable_timestamp (such as 'never' in",
        "bad.csv, line 3)",
        "ds=latest: this folder is not a day's drop; name folders ds=YYYY-MM-DD",
        "events/2024-03-06: this folder is not a day's drop",
        "no drop folder",
    ):
        assert said in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_filter_does_not_hide_malformed_rows(spark: SparkSession, tmp_path: Path) -> None:
    where = "status = 'ok' AND double(price) > 1 AND row IS NULL"
    warehouse = make_shop(spark, tmp_path, format="json", events={"where": where}, max_rejected_share=0.7)
    good = {"user_id": "u", "item_id": "i", "event_ts": DAY, "status": "ok", "price": 1.5, "row": None}
    lines = [json.dumps(good), json.dumps({**good, "price": 0.5}), "{torn", '{"user_id": 1, "user_id": 2}']
    put_file(warehouse, f"ds={DAY}/a.json", "\n".join(lines))
    counts = dict(ingest_events(warehouse, [DAY]).rows)
    assert counts == {"delivered": 4, "loaded": 1, "duplicates": 0, "quarantined": 2, "filtered": 1}
    # A refused load keeps the rows of what was loaded before.
    put_file(warehouse, f"ds={DAY}/a.json", "\n".join(lines[2:]))
    with pytest.raises(DropError, match=r"100\.00% of 2 rows are bad"):
        ingest_events(warehouse, [DAY])
    kept = warehouse.read("events_quarantine").groupBy("loaded").count().collect()
    assert {row["loaded"]: row["count"] for row in kept} == {True: 2, False: 2}
    put_file(warehouse, f"ds={DAY}/a.json", lines[0])
    assert ingest_events(warehouse, [DAY]).rows.loaded == 1
    assert reasons(warehouse) == {}


def test_incomplete_files_are_named(spark: SparkSession, tmp_path: Path) -> None:
    warehouse = make_shop(spark, tmp_path, format="csv")
    text = f"user_id,item_id,event_ts\nu,i,{DAY}\n"
    put_file(warehouse, f"ds={DAY}/good.csv", text)
    put_file(warehouse, f"ds={DAY}/empty.csv", "")
    put_file(warehouse, f"ds={DAY}/put.csv._COPYING_", text)
    inner = put_file(warehouse, f"ds={DAY}/_temporary/0/ds={DAY}/inner.csv", text)
    (inner.parent.parent.parent.parent / "link.csv").symlink_to(tmp_path / "unmounted.csv")
    with pytest.raises(DropError) as error:
        ingest_events(warehouse, [DAY])
    for said in (
        "empty.csv: this file does not even have a header line",
        "put.csv._COPYING_: this file is being written",
        "link.csv: this link leads to no file",
    ):
        assert said in str(error.value)
    assert "inner.csv" not in str(error.value)


def test_too_many_bad_rows_fail_the_load_and_commit_no_event(empty_shop: Warehouse) -> None:
    write_events(empty_shop, [(1, 2, f"{DAY} 10:00:00", "a"), (None, 2, f"{DAY} 10:00:00", "a")])
    with pytest.raises(DropError, match=r"50.00% of 2 rows are bad, .*limit|max_rejected_share is 1.00%"):
        ingest_events(empty_shop, [DAY])
    assert not empty_shop.exists("events")
    assert reasons(empty_shop) == {"null:user_id": 1}


def test_a_corrupt_file_is_named_and_nothing_is_committed(empty_shop: Warehouse) -> None:
    path = write_events(empty_shop, [(1, 2, f"{DAY} 10:00:00", "a")])
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
    """The footer is intact, but the pages are not."""
    path = write_events(empty_shop, [(u, u % 7, f"{DAY} 10:00:00", f"s{u}") for u in range(3000)])
    data = bytearray(path.read_bytes())
    data[8:4000] = b"\xff" * 3992
    path.write_bytes(data)
    with pytest.raises(DropError, match=rf"{path.name}.*deliver it again"):
        ingest_events(empty_shop, [DAY])
