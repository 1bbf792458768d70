"""Odd input of `lime init` ends in a sentence or in a note, and nothing is left out silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.onboard.begin import begin
from pipelines.onboard.begun import Begun
from pipelines.onboard.dialect import DataError
from pipelines.onboard.guesses import Guess
from pipelines.settings.settings import Settings, load_settings

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


def test_impossible_times_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    """Check that a zero or a typing error does not become the first or the last day."""
    log, usual = tmp_path / "log.csv", begin_log(tmp_path / "usual", LOG)
    log.write_text(LOG + "u1,i1,2199-03-01 10:00:00\nu2,i2,1970-01-01 00:00:00\nu3,i3,2204-03-05 10:00:00\n")
    begun = begin(log, tmp_path / "own" / "lime.yaml", {}, None)
    assert (begun.first, begun.night, begun.written) == (usual.first, usual.night, usual.written)
    assert sorted(row.problem for row in begun.unreadable) == [
        "the time '1970-01-01 00:00:00' is not from 1970-01-02 to 2199-12-31",
        "the time '2199-03-01 10:00:00' is in the future",
        "the time '2204-03-05 10:00:00' is not from 1970-01-02 to 2199-12-31",
    ]
    assert load_settings(begun.config).ingest.missing_drop == load_settings(usual.config).ingest.missing_drop


def test_a_log_that_is_all_in_the_future_is_kept_and_named(tmp_path: Path) -> None:
    begun = begin_log(tmp_path, LOG.replace("2024-", "2150-"))
    (said,) = [note.said for note in begun.notes if note.what == "future"]
    assert said.startswith(f"{begun.rows:,} events are in the future")
    assert begun.written == begun.rows


def begin_log(folder: Path, text: str, **given: str) -> Begun:
    """Begin with one CSV file."""
    folder.mkdir(exist_ok=True)
    (folder / "one.csv").write_text(text)
    return begin(folder / "one.csv", folder / "own" / "lime.yaml", given, None)


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


@pytest.mark.parametrize("key", ["isrc", "code", "faa", "item"])
def test_a_table_is_found_by_the_ids_it_shares_whatever_their_column_is_called(
    tmp_path: Path, key: str
) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    lines = "".join(f"i{n},Name of {n},{'AB'[n % 2]}\n" for n in range(60))
    (tmp_path / "registry.csv").write_text(f"{key},title,kind\n{lines}")
    own = load_settings(begin(tmp_path, tmp_path / "own" / "lime.yaml", {}, None).config)
    assert own.ingest.items.columns == {"kind": "string", "title": "string"}
    assert own.report.item_name == ["title"]


def test_a_table_that_is_named_for_items_is_used_or_refused(tmp_path: Path) -> None:
    numbers = LOG.replace(",i", ",")
    (tmp_path / "log.csv").write_text(numbers)
    (tmp_path / "a.csv").write_text("code,kind\n" + "".join(f"{n},{'AB'[n % 2]}\n" for n in range(60)))
    (tmp_path / "b.csv").write_text("code,kind,more\n" + "".join(f"x{n},C,{n % 3}\n" for n in range(60)))
    assert not settings_of(tmp_path, "own1").ingest.items.columns  # small numbers are in any table
    assert settings_of(tmp_path, "own2", items="a").ingest.items.columns == {"kind": "string"}
    with pytest.raises(
        DataError, match=r"the table b can't describe items: .* code, with 0\.0%; correct --items"
    ):
        begin(tmp_path, tmp_path.parent / "own3" / "lime.yaml", {"items": "b"}, None)


def settings_of(source: Path, own: str, **given: str) -> Settings:
    """Begin with a source, in a folder of its own, and return the settings."""
    return load_settings(begin(source, source.parent / own / "lime.yaml", given, None).config)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("stars >= 4", 360), ("stars >= 4 AND user_id <> 'u4'", 337), ('user_id <> "u1"', 877),
        ("`stars` = 5 OR item_id = 'it''s'", 180), ("try_cast(stars AS DOUBLE) < 2.5", 360),
    ],
)  # fmt: skip
def test_a_filter_is_evaluated_as_spark_evaluates_it(tmp_path: Path, where: str, kept: int) -> None:
    log = tmp_path / "log.csv"
    rows = ROWS.splitlines()
    log.write_text(
        "user_id,item_id,event_time,stars\n" + "".join(f"{r},{n % 5 + 1}\n" for n, r in enumerate(rows))
    )
    begun = begin(log, tmp_path / "own" / "lime.yaml", {"where": where}, None)
    assert begun.amounts.rows == kept
    assert not [note for note in begun.notes if "only Spark" in note.said]
    last = begun.tries[0]
    assert 0 < last.filtered < last.delivered


def test_a_filter_of_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"names the column 'stars', which events do not have; they have user_id"
    ):
        begin_log(tmp_path, LOG, where="stars >= 4")
    assert not (tmp_path / "own").exists()


def test_ratings_are_events_and_the_note_says_how_low_ones_are_left_out(tmp_path: Path) -> None:
    rows = ROWS.splitlines()
    text = "user_id,item_id,event_time,rating\n" + "".join(
        f"{r},{n * n % 11 / 2}\n" for n, r in enumerate(rows)
    )
    (said,) = [note.said for note in begin_log(tmp_path, text).notes if note.what == "ratings"]
    assert said.endswith("give --where 'rating >= 4'")


def test_the_line_that_excel_reads_is_skipped_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    text = "sep=;\n" + LOG.replace(",", ";") + "u1;i1;2024-03-01 10:00:00;one field more\n"
    begun = begin_log(tmp_path, text)
    assert (begun.written, [row.line for row in begun.unreadable]) == (900, [903])


def test_lines_above_the_names_are_named(tmp_path: Path) -> None:
    text = "Sales of March;;\n;;\n" + LOG.replace(",", ";")
    with pytest.raises(DataError, match=r"the first line of .*one\.csv, 'Sales of March;;', was not taken"):
        begin_log(tmp_path, text)


def test_times_in_several_forms_are_named(tmp_path: Path) -> None:
    lines = LOG.splitlines()
    text = "\n".join(line.replace("2024-03-01 10:00:00", "1.03.2024") for line in lines)
    with pytest.raises(
        DataError, match=r"the values of event_time have several forms: '2024-03-0\d 10:00:00', '1"
    ):
        begin_log(tmp_path, text)
    with pytest.raises(
        DataError, match=r"no value of event_time, such as .* of the format dd/MM/yy; correct"
    ):
        begin_log(tmp_path / "again", LOG, time_format="dd/MM/yy")


def test_users_with_one_event_each_are_named(tmp_path: Path) -> None:
    text = "user_id,item_id,event_time\n" + "".join(f"v{n}{row}\n" for n, row in enumerate(ROWS.splitlines()))
    (said,) = [note.said for note in begin_log(tmp_path, text).notes if note.what == "short_histories"]
    assert said.startswith("only 0 of 900 users have more than one event")


def test_two_logs_of_equal_size_are_a_question(tmp_path: Path) -> None:
    (tmp_path / "plays.csv").write_text(LOG)
    (tmp_path / "sales.csv").write_text(
        LOG.replace("event_time", "sold_at,price").replace(":00\n", ":00,1.5\n")
    )
    asked: list[str] = []

    def ask(guess: Guess) -> str:
        asked.append(guess.option)
        return "sales" if guess.option == "events" else str(guess.value)

    begun = begin(tmp_path, tmp_path / "own" / "lime.yaml", {}, ask)
    assert "events" in asked
    assert load_settings(begun.config).ingest.events.event_ts == "sold_at"


def test_a_spreadsheet_is_not_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "orders.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 64)
    with pytest.raises(DataError, match=r"orders\.xlsx is a spreadsheet; save it as CSV"):
        begin(tmp_path / "orders.xlsx", tmp_path / "own" / "lime.yaml", {}, None)
    assert not (tmp_path / "own").exists()


def test_a_zone_that_has_no_effect_is_still_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--timezone: 'Berlin' is not a time zone"):
        begin_log(tmp_path, LOG.replace(":00\n", ":00Z\n"), timezone="Berlin")
