"""Odd input of `lime init` ends in a sentence or in a note, and nothing is left out silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.onboard.begin import begin
from pipelines.onboard.dialect import DataError
from pipelines.settings.settings import load_settings

ROWS = "".join(f"u{n % 40},i{n % 60},2024-03-{n % 9 + 1:02d} 10:00:00\n" for n in range(900))
LOG = "user_id,item_id,event_time\n" + ROWS


def test_a_field_longer_than_pythons_limit_is_read(tmp_path: Path) -> None:
    long = tmp_path / "long.csv"
    long.write_text("user_id,item_id,event_time,note\n" + ROWS.replace("\n", f",{'x' * 2000}\n", 1).replace(
        ":00\n", ":00,\n") + f"u1,i1,2024-03-01 10:00:00,{'y' * 200_000}\n")  # fmt: skip
    assert begin(long, tmp_path / "own" / "lime.yaml", {}, None).rows == 901


def test_a_folder_that_is_no_day_is_named(tmp_path: Path) -> None:
    for day in ("ds=2024-03-05", "ds=notadate"):
        folder = tmp_path / "days" / "events" / day
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text(LOG)
    with pytest.raises(DataError, match="ds=notadate is not a day's drop; name folders ds=YYYY-MM-DD"):
        begin(tmp_path / "days", tmp_path / "own" / "lime.yaml", {}, None)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(LOG)
    with pytest.raises(DataError, match=r"nothing can be written into .*log\.csv"):
        begin(log, log / "lime.yaml", {}, None)


def test_files_that_are_not_used_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.csv").write_text(LOG)
    (folder / "b.csv").write_text("wer,was,wann\n" + ROWS[:3000])
    begun = begin(folder, tmp_path / "own" / "lime.yaml", {"events": "a"}, None)
    unused = [note.said for note in begun.notes if note.what == "unused"]
    assert len(unused) == 1
    assert "rows are NOT used" in unused[0]
    assert "b.csv" in unused[0]


def test_events_in_the_future_are_named(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(LOG + "u1,i1,2199-03-01 10:00:00\nu2,i2,2199-03-02 10:00:00\n")
    begun = begin(log, tmp_path / "own" / "lime.yaml", {}, None)
    (said,) = [note.said for note in begun.notes if note.what == "future"]
    assert said.startswith("2 events are in the future, on 2 days up to 2199-03-02")
    assert len(list((tmp_path / "own" / "raw" / "events").iterdir())) == 11  # no folder for an empty day


def test_a_list_is_no_id_and_a_time_says_more_than_its_date(tmp_path: Path) -> None:
    log = tmp_path / "ga4.jsonl"
    rows = [
        {
            "event_date": f"2024030{n % 9 + 1}",
            "event_timestamp": 1_709_290_000_000_000 + n * 864_000_001,
            "user_pseudo_id": f"{n % 40}.{n}x",
            "item_id": f"sku{n % 60}",
            "items": [{"item_id": f"sku{n % 60}", "price": n}],
        }
        for n in range(900)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    begin(log, tmp_path / "own" / "lime.yaml", {}, None)
    events = load_settings(tmp_path / "own" / "lime.yaml").ingest.events
    assert (events.user_id, events.item_id, events.event_ts) == (
        "user_pseudo_id",
        "item_id",
        "event_timestamp",
    )
