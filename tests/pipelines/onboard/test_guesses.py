"""Guesses hold under other names, delimiters, quotes, encodings, units and zones, and never lose a row."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.onboard.begin import begin
from pipelines.onboard.begun import Begun
from pipelines.onboard.dialect import DataError
from pipelines.onboard.time_forms import says_offset
from pipelines.settings.settings import Settings, load_settings
from tests.pipelines.onboard.layouts import Event, Size, make_events, micros

SMALL = Size(users=30, items=40, days=20, seed=8)
EVENTS = list(make_events(SMALL))
TYPES = ("view", "cart", "refunded")
YES_NO = ("no", "yes")
WEST = dt.timezone(dt.timedelta(hours=-5))


def write_csv(
    path: Path,
    names: Sequence[str] | None,
    rows: Sequence[Sequence[Any]],
    encoding: str = "utf-8",
    **dialect: Any,
) -> Path:
    """Write CSV in any dialect."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n", **dialect)
    if names:
        writer.writerow(names)
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def look(path: Path, **given: str) -> tuple[Begun, Settings]:
    """Run `lime init` without a person to ask."""
    config = path.parent / "own" / "lime.yaml"
    found = begin(path, config, given, None)
    return found, load_settings(config)


def simple(events: Sequence[Event] = EVENTS) -> list[list[Any]]:
    """Return rows of user, item and ISO time."""
    return [[f"u{event.user}", f"i{event.item}", f"{event.when.isoformat()}Z"] for event in events]


def mapped(found: Settings) -> tuple[str, str, str]:
    """Return the columns of user, item and time."""
    return found.ingest.events.user_id, found.ingest.events.item_id, found.ingest.events.event_ts


@pytest.mark.parametrize(
    "names",
    [
        ("user_id", "item_id", "timestamp"), ("CustomerID", "StockCode", "InvoiceDate"),
        ("uid", "sku", "ts"), ("visitorid", "itemid", "event_time"),
        ("member", "article", "when"), ("userId", "movieId", "created_at"),
        ("reviewerID", "asin", "unixReviewTime"), ("kunde", "artikel", "zeitpunkt"),
        ("client", "produit", "date"), ("usuario", "producto", "fecha"),
        ("USER", "BOOK_ISBN", "DATETIME"), ("household_key", "PRODUCT_ID", "DAY"),
        ("fullVisitorId", "productSKU", "time"), ("customer", "product", "order_date"),
        ("account", "track", "at"),
    ],
)  # fmt: skip
def test_columns_are_found_by_common_names_in_any_order(names: tuple[str, str, str], tmp_path: Path) -> None:
    user, item, time = names
    rows = [[row[2], "x", row[1], row[0]] for row in simple()]
    found, own = look(write_csv(tmp_path / "log.csv", [time, "channel", item, user], rows))
    assert mapped(own) == names
    assert (found.written, found.faults) == (len(rows), [])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", "~", ":: "])
@pytest.mark.parametrize("header", [True, False])
def test_delimiters_and_headers_are_found(delimiter: str, header: bool, tmp_path: Path) -> None:
    names, rows = ["user", "item", "time"], simple()
    if len(delimiter) > 1:
        delimiter = delimiter.strip()
        lines = [delimiter.join(map(str, row)) for row in ([names] if header else []) + rows]
        path = tmp_path / "log.dat"
        path.write_text("\n".join(lines) + "\n")
    else:
        path = write_csv(tmp_path / "log.csv", names if header else None, rows, delimiter=delimiter)
    found, own = look(path)
    assert (found.rows, found.written, found.unreadable) == (len(rows), len(rows), [])
    assert mapped(own) == (("user", "item", "time") if header else ("column1", "column2", "column3"))


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
def test_quoted_fields_with_delimiters_quotes_and_line_breaks_stay_whole(
    quoting: Any, tmp_path: Path
) -> None:
    texts = ['a, "b"', "line\nbreak", "plain", "it's"]
    rows = [[*row, texts[i % 4]] for i, row in enumerate(simple())]
    found, _ = look(
        write_csv(tmp_path / "log.csv", ["user", "item", "time", "comment"], rows, quoting=quoting)
    )
    assert (found.rows, found.written, found.unreadable) == (len(rows), len(rows), [])
    drops = pq.read_table(tmp_path / "own" / "raw" / "events").column("comment").to_pylist()
    assert sorted(drops) == sorted(row[3] for row in rows)


def test_quotes_that_quote_nothing_are_text(tmp_path: Path) -> None:
    texts = ['"6 inch" pan', 'pan of 6"', '"', "plain"]
    lines = ["user\titem\ttime\tname"] + ["\t".join([*row, texts[i % 4]]) for i, row in enumerate(simple())]
    (tmp_path / "log.tsv").write_text("\n".join(lines) + "\n")
    found, _ = look(tmp_path / "log.tsv")
    assert (found.rows, found.written, found.unreadable) == (len(EVENTS), len(EVENTS), [])
    drops = pq.read_table(tmp_path / "own" / "raw" / "events").column("name").to_pylist()
    assert set(drops) == set(texts)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "Übergröße"),
        ("utf-8-sig", "Übergröße"),
        ("latin-1", "Übergröße"),
        ("cp1252", "crème brûlée – 5 €"),
        ("utf-16", "日本語"),
        ("utf-16-le", "Größe"),
        ("utf-16-be", "Größe"),
        ("cp1251", "Большой красный чайник"),
        ("shift_jis", "日本語のおいしいお茶とコーヒー"),
        ("gb18030", "中文名称很长的商品描述"),
        ("cp1250", "Žluťoučký kůň příliš žluťoučký"),
    ],
)  # fmt: skip
def test_encodings_are_found(encoding: str, text: str, tmp_path: Path) -> None:
    rows = [[*row, f"{text} {i % 5}"] for i, row in enumerate(simple())]
    found, _ = look(write_csv(tmp_path / "log.csv", ["user", "item", "time", "note"], rows, encoding))
    drops = pq.read_table(tmp_path / "own" / "raw" / "events").column("note").to_pylist()
    assert sorted(drops) == sorted(row[3] for row in rows)
    assert found.written == len(rows)


@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("epoch_seconds", lambda when: micros(when) // 1_000_000),
        ("epoch_millis", lambda when: micros(when) // 1_000),
        ("epoch_micros", lambda when: micros(when)),
        ("epoch_seconds", lambda when: f"{micros(when) / 1e6:.3f}"),
        ("iso", lambda when: when.isoformat() + "+00:00"),
        (
            "iso",
            lambda when: (
                when.replace(tzinfo=dt.UTC).astimezone(dt.timezone(dt.timedelta(hours=-5))).isoformat()
            ),
        ),
        ("iso", lambda when: str(when)),
        ("dd.MM.yyyy HH:mm:ss", lambda when: f"{when:%d.%m.%Y %H:%M:%S}"),
        ("MM/dd/yyyy HH:mm:ss", lambda when: f"{when:%m/%d/%Y %H:%M:%S}"),
        ("yyyy/MM/dd HH:mm:ss", lambda when: f"{when:%Y/%m/%d %H:%M:%S}"),
        ("MM/dd/yyyy hh:mm:ss a", lambda when: f"{when:%m/%d/%Y %I:%M:%S %p}"),
        ("yyyyMMddHHmmss", lambda when: f"{when:%Y%m%d%H%M%S}"),
        ("dd MMM yyyy HH:mm:ss", lambda when: f"{when:%d %b %Y %H:%M:%S}"),
    ],
)
def test_times_are_read_as_the_instants_that_they_are(form: str, write: Any, tmp_path: Path) -> None:
    rows = [[event.user, event.item, write(event.when)] for event in EVENTS]
    found, own = look(write_csv(tmp_path / "log.csv", ["user", "item", "time"], rows))
    assert own.ingest.timestamp.format == form
    rule = own.ingest.rules.time
    drops = pq.read_table(tmp_path / "own" / "raw" / "events")
    read = [rule.read_micros(value) for value in drops.column("time").to_pylist()]
    assert sorted(map(int, read)) == sorted(micros(event.when) for event in EVENTS)  # type: ignore[arg-type]
    assert min(found.days) == "2024-03-01"


def test_a_given_zone_moves_local_times_to_their_utc_day(tmp_path: Path) -> None:
    rows = [[event.user, event.item, str(event.when)] for event in EVENTS]
    rows.append([0, 0, "2024-03-21 00:30:00"])
    found, own = look(
        write_csv(tmp_path / "log.csv", ["user", "item", "time"], rows), timezone="Europe/Berlin"
    )
    assert (own.ingest.source_timezone, own.ingest.day_zone) == ("Europe/Berlin", "UTC")
    assert max(found.days) == "2024-03-20"  # 23:30 UTC of the day before
    assert found.faults == []


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d/%m/%Y"])
def test_a_date_and_a_time_of_day_are_one_time(form: str, tmp_path: Path) -> None:
    rows = [[f"{e.when:{form}}", f"{e.when:%H:%M:%S}", e.session, f"thing {e.item}"] for e in EVENTS]
    found, own = look(write_csv(tmp_path / "log.csv", ["Date", "Time", "Client", "Item"], rows))
    assert mapped(own) == ("Client", "Item", "Date_Time")
    rule = own.ingest.rules.time
    times = pq.read_table(tmp_path / "own" / "raw" / "events").column("Date_Time").to_pylist()
    read = [rule.read_micros(value) for value in times]
    assert sorted(map(int, read)) == sorted(micros(event.when) for event in EVENTS)  # type: ignore[arg-type]
    assert found.written == len(EVENTS)


def test_ids_as_large_as_times_stay_ids(tmp_path: Path) -> None:
    rows = [[1430 * 10**15 + e.item, 1_200_000_000 + e.user, f"{e.when}Z"] for e in EVENTS]
    _, own = look(write_csv(tmp_path / "log.csv", ["tweet_id", "user_id", "liked_at"], rows))
    assert mapped(own) == ("user_id", "tweet_id", "liked_at")


def test_day_and_month_that_nothing_tells_apart_are_an_error_that_names_the_option(tmp_path: Path) -> None:
    rows = [[i % 30, i % 40, f"{1 + i % 12:02}/{1 + (i * 5) % 12:02}/2024"] for i in range(600)]
    path = write_csv(tmp_path / "log.csv", ["user", "item", "time"], rows)
    with pytest.raises(
        DataError, match=r"dd/MM/yyyy, MM/dd/yyyy all read the values; say it with --time-format dd"
    ):
        look(path)
    _, own = look(path, time_format="MM/dd/yyyy")
    assert own.ingest.timestamp.format == "MM/dd/yyyy"


def test_columns_that_nothing_tells_apart_are_an_error_that_names_the_option(tmp_path: Path) -> None:
    rows = [[event.user + 100, event.item + 500, event.session, f"{event.when}Z"] for event in EVENTS]
    path = write_csv(tmp_path / "log.csv", None, rows)
    with pytest.raises(DataError, match=r"column1, column2, column3; say it with --user and one of column"):
        look(path)
    _, own = look(path, user="column1", item="column2")
    assert mapped(own) == ("column1", "column2", "column4")
    with pytest.raises(DataError, match="can't be the answer"):
        begin(path, tmp_path / "other" / "lime.yaml", {"user": "nobody"}, None)


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (lambda i: f"{17850 + i}.0", "long"), (lambda i: f"{17850 + i}", "long"),
        (lambda i: f"{i:04}", "string"),
        (lambda i: f"{85123 + i}A" if i % 2 else f"{85123 + i}", "string"),
        (lambda i: f"{i:08x}-ab", "string"),
    ],
)  # fmt: skip
def test_ids_keep_their_spelling_and_get_their_type(write: Any, kind: str, tmp_path: Path) -> None:
    rows = [[write(event.user), write(event.item), f"{event.when}Z"] for event in EVENTS]
    found, own = look(write_csv(tmp_path / "log.csv", ["user", "item", "time"], rows))
    assert own.ids.model_dump() == {"user_id": kind, "item_id": kind}
    drops = pq.read_table(tmp_path / "own" / "raw" / "events").column("user").to_pylist()
    assert sorted(drops) == sorted(row[0] for row in rows)
    assert ("float_user" in {note.what for note in found.notes}) == write(1).endswith(".0")


def test_bad_rows_are_named_with_file_and_line_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ["user", "item", "time"], simple())
    lines = path.read_text().splitlines()
    lines[5] += ",one,too,many"
    lines[9] = "u1,i1,soon"
    path.write_text("\n".join(lines) + "\n")
    found, _ = look(path)
    assert (found.rows, found.written) == (len(EVENTS), len(EVENTS) - 2)
    assert [row.line for row in found.unreadable] == [6, 10]
    listed = (tmp_path / "own" / "unreadable-rows.csv").read_text().splitlines()
    assert listed[1:] == [
        f"{path},6,6 fields where the header has 3",
        f"{path},10,the time 'soon' can't be read",
    ]


def test_types_labels_bots_duplicates_and_missing_days_are_found(tmp_path: Path) -> None:
    kept = [event for event in EVENTS if event.when.day not in (7, 8)]
    rows = [
        [e.user, e.item, f"{e.when}Z", TYPES[e.item % 3], e.item % 2, YES_NO[e.item % 9 == 0]]
        for e in kept
    ]  # fmt: skip
    rows += [[900 + i, i % 40, f"2024-03-09 00:{i:02}:00Z", "view", 0, "no"] for i in range(40)]
    rows += [
        [999, i % 40, f"2024-03-10 {i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}Z", "view", 1, "no"]
        for i in range(3000)
    ]
    rows += rows[:7]
    found, own = look(
        write_csv(
            tmp_path / "log.csv", ["user", "item", "time", "event_type", "clicked", "is_cancelled"], rows
        )
    )
    assert (own.ingest.events.event_type, own.ingest.events.label) == ("event_type", "clicked")
    assert own.models[0].config.event_types == ("view", "cart")
    assert own.models[0].labels is not None
    assert own.ingest.events.where == (
        "coalesce(lower(CAST(event_type AS STRING)), '') NOT IN ('refunded') AND "
        "coalesce(lower(CAST(is_cancelled AS STRING)), '') NOT IN ('yes')"
    )
    assert {"bots", "duplicates", "missing_days", "filter"} <= {note.what for note in found.notes}
    assert not (tmp_path / "own" / "raw" / "events" / "ds=2024-03-07").exists()
    assert own.ingest.missing_drop == "empty"  # a day without rows needs no folder
    assert found.faults == []


def test_a_filter_that_only_spark_reads_is_written_as_it_is(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.tsv", ["user", "item", "time"], simple(), delimiter="\t")
    found, own = look(path, where="rlike(item, 'i[0-9]') AND item <=> item", delimiter="\\t")
    assert own.ingest.events.where == "rlike(item, 'i[0-9]') AND item <=> item"
    assert any("only Spark can evaluate the filter" in note.said for note in found.notes)
    assert found.faults == []


def test_users_who_are_nobody_are_filtered(tmp_path: Path) -> None:
    rows = [[0 if i % 2 else e.user + 1, e.item, f"{e.when}Z"] for i, e in enumerate(EVENTS)]
    found, own = look(write_csv(tmp_path / "log.csv", ["user", "item", "time"], rows))
    assert own.ingest.events.where == "CAST(`user` AS STRING) NOT IN ('0')"
    assert found.amounts.rows == sum(row[0] != 0 for row in rows)
    assert found.tries[0].filtered > 0
    assert found.faults == []


def test_nested_json_in_day_folders_is_written_anew(tmp_path: Path) -> None:
    for event in EVENTS:
        folder = tmp_path / "in" / "events" / f"ds={event.when.date()}"
        folder.mkdir(parents=True, exist_ok=True)
        row = {
            "who": {"user_id": event.user},
            "item_id": event.item,
            "ts": f"{event.when.isoformat()}Z",
            "tags": ["a"],
        }
        with (folder / "part.json").open("a") as file:
            file.write(json.dumps(row) + "\n")
    config = tmp_path / "own" / "lime.yaml"
    found = begin(tmp_path / "in", config, {}, None)
    assert found.written == len(EVENTS)
    assert mapped(load_settings(config)) == ("who_user_id", "item_id", "ts")


def test_an_array_in_day_folders_is_written_anew(tmp_path: Path) -> None:
    rows = [{"user_id": e.user, "item_id": e.item, "ts": f"{e.when.isoformat()}Z"} for e in EVENTS]
    folder = tmp_path / "in" / "events" / "ds=2024-03-01"
    folder.mkdir(parents=True)
    (folder / "part.json").write_text(json.dumps(rows, indent=1))
    found = begin(tmp_path / "in", tmp_path / "own" / "lime.yaml", {}, None)
    assert (found.written, found.faults) == (len(EVENTS), [])


def test_a_catalogue_from_before_the_first_events_is_loaded(tmp_path: Path) -> None:
    for event in EVENTS:
        folder = tmp_path / "in" / "events" / f"ds={event.when.date()}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "part.csv").open("a") as file:
            file.write(f"{event.when.isoformat()}Z,{event.item},u{event.user}\n")
    folder = tmp_path / "in" / "items" / "ds=2024-02-27"
    folder.mkdir(parents=True)
    (folder / "items.csv").write_text("".join(f"x,{item},kind {item % 3}\n" for item in range(40)))
    config = tmp_path / "own" / "lime.yaml"
    found = begin(tmp_path / "in", config, {"header": "when,item,who"}, None)
    assert "--from 2024-02-27 --to 2024-03-20" in found.commands[1]
    own = load_settings(config)
    assert own.ingest.missing_drop == "empty"
    assert own.ingest.csv.header == ["when", "item", "who"]


def test_sources_in_two_dialects_are_written_anew(tmp_path: Path) -> None:
    for source, lines in (
        ("events", [f"{e.when.isoformat()}Z;{e.item};u{e.user}" for e in EVENTS]),
        ("items", ["item_id,kind", *(f"{item},kind {item % 3}" for item in range(40))]),
    ):
        folder = tmp_path / "in" / source / "ds=2024-03-01"
        folder.mkdir(parents=True)
        (folder / "part.csv").write_text("\n".join(lines) + "\n")
    found = begin(tmp_path / "in", tmp_path / "own" / "lime.yaml", {"header": "when,item,who"}, None)
    assert (found.written, found.faults) == (len(EVENTS), [])
    assert list(load_settings(found.config).ingest.items.columns) == ["kind"]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pa.table(
        {
            "ds": ["x"] * len(EVENTS),
            "user_id": pa.array([float(event.user) for event in EVENTS]),
            "item_id": pa.array([event.item for event in EVENTS], pa.int16()),
            "at": pa.array([event.when for event in EVENTS], pa.timestamp("ns", "Europe/Berlin")),
        }
    )
    pq.write_table(frame, tmp_path / "log.parquet")
    found, own = look(tmp_path / "log.parquet")
    assert own.ids.model_dump() == {"user_id": "long", "item_id": "long"}
    assert found.written == len(EVENTS)
    assert found.asked == 0
    assert not any(guess.option == "timezone" for guess in found.guesses)


@given(
    cells=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12),
        min_size=3,
        max_size=30,
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_and_no_text_is_lost(
    cells: list[str], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any")
    rows = [[*row, cells[i % len(cells)]] for i, row in enumerate(simple(EVENTS[:200]))]
    path = write_csv(root / "log.csv", ["user", "item", "time", "text"], rows, delimiter=delimiter)
    found, own = look(path)
    assert found.rows == len(rows)
    assert found.written + len(found.unreadable) == len(rows)
    assert not found.unreadable
    drops = pq.read_table(root / "own" / "raw" / "events").column("text").to_pylist()
    nulls = own.ingest.nulls
    expected = [row[3] if row[3].strip().lower() not in nulls else None for row in rows]
    assert sorted(drops, key=str) == sorted(expected, key=str)


def test_what_is_there_already_is_never_overwritten(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ["user", "item", "time"], simple())
    look(path)
    before = (tmp_path / "own" / "lime.yaml").read_text()
    with pytest.raises(DataError, match="is there already"):
        look(path)
    assert (tmp_path / "own" / "lime.yaml").read_text() == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "has no files"), ("a.zip", b"PK\x03\x04....", "is a zip archive"),
        ("a.parquet", b"PAR1 and no more", "is no readable Parquet file"),
        ("a.csv", b"name,age\nAnn,3\nBob,4\n", "no table has a column of times and two of ids"),
        ("a.csv", b"\n\n", "has no rows"), ("a.json", b"[{]", "no row that can be read"),
        ("a.csv", b"id,ID,ts\n1,2,2024-01-01\n", "names a column twice"),
    ],
)  # fmt: skip
def test_data_that_can_t_be_used_is_an_error_with_a_remedy(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        begin(folder, tmp_path / "own" / "lime.yaml", {}, None)
    with pytest.raises(DataError, match="there is nothing at"):
        begin(tmp_path / "nowhere", tmp_path / "own" / "lime.yaml", {}, None)


@pytest.mark.parametrize(
    ("form", "zoned"),
    [
        ("iso", False), ("epoch_millis", True), ("dd.MM.yyyy HH:mm", False), ("yyyy-MM-dd HH:mm:ssX", True),
        ("EEE MMM dd HH:mm:ss Z yyyy", True), ("%d/%b/%Y:%H:%M:%S %z", True), ("yyyy-MM-dd'Z'", False),
    ],
)  # fmt: skip
def test_a_format_says_whether_its_times_have_an_offset(form: str, zoned: bool) -> None:
    assert says_offset(form) is zoned
