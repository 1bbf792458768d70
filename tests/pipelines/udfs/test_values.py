"""Values of drops are read by one rule, from all Python and Arrow types; no JVM is started."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.settings.ingest import IngestSettings
from pipelines.udfs.times import TimeRule, check_format, to_python
from pipelines.udfs.value_columns import combine, read_column
from pipelines.udfs.values import ValueRules, WantedColumn, read_id, read_value
from pipelines.udfs.whole_numbers import Unreadable

RULES = IngestSettings().rules
NULLS = IngestSettings().nulls


def time(text: object, zone: str = "UTC", how: str = "iso") -> str | None:
    """Read a value as a time, and return the instant in UTC."""
    micros = TimeRule(how, zone).read_micros(text)
    return None if micros is None else str(dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros))


@pytest.mark.parametrize("value", [42, 42.0, "42", " 42", "42.0", "4.2E1", "4.2e+1", Decimal("42.00"), b"42"])
@pytest.mark.parametrize("kind", ["bigint", "string"])
def test_one_number_is_one_id(value: object, kind: str) -> None:
    assert read_id(value, kind, NULLS) == (42 if kind == "bigint" else "42")


def test_text_that_is_no_written_float_remains_unchanged() -> None:
    for text in ("0042", "12E4", "1.10", "a.0", "-", "1.5e-3", "00.0", "+7"):
        assert read_id(text, "string", NULLS) == text
    assert read_id("0042", "bigint", NULLS) == 42


@pytest.mark.parametrize("value", ["", "  ", "NULL", "null", r"\N", "nan", "NaN", "None", float("nan"), None])
@pytest.mark.parametrize("kind", ["bigint", "string"])
def test_text_that_means_null_is_not_an_id(value: object, kind: str) -> None:
    assert read_id(value, kind, NULLS) is None
    other = IngestSettings(null_values=["-"]).nulls
    assert read_id("-", kind, other) is None
    if kind == "string" and value == "NULL":
        assert read_id(value, kind, other) == "NULL"


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ("abc", "bigint", "wrong_type"),
        (4.5, "bigint", "wrong_type"),
        (True, "bigint", "wrong_type"),
        (True, "string", "wrong_type"),
        ({"a": 1}, "string", "wrong_type"),
        (["a"], "string", "wrong_type"),
        (2.0**60, "bigint", "inexact_number"),
        (2.0**60, "string", "inexact_number"),
        (1 << 63, "bigint", "wrong_type"),
        ("1e999", "bigint", "inexact_number"),
        ("1152921504606846976.0", "string", "inexact_number"),
        ("1.15e18", "bigint", "inexact_number"),
        ("9" * 5000, "bigint", "wrong_type"),
        ("a\ufffdb", "string", "invalid_text"),
        ("\ud800", "string", "invalid_text"),
        (b"\xff\xfe", "string", "invalid_text"),
    ],
)
def test_a_value_that_is_no_id_is_refused_with_the_reason(value: object, kind: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_id(value, kind, NULLS)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2024-03-01T12:00:00+09:00", "UTC", "2024-03-01 03:00:00"),
        ("2024-03-01T12:00:00Z", "Asia/Tokyo", "2024-03-01 12:00:00"),
        ("2024-03-01 12:00:00+0530", "Asia/Tokyo", "2024-03-01 06:30:00"),
        ("2024-03-01 12:00:00 Europe/Berlin", "Asia/Tokyo", "2024-03-01 11:00:00"),
        ("2024-03-01 12:00:00", "Asia/Tokyo", "2024-03-01 03:00:00"),
        ("2024-03-01", "America/New_York", "2024-03-01 05:00:00"),
        ("2024-3-1 9:05", "UTC", "2024-03-01 09:05:00"),
        ("2024-03-01T12:00:00.123456789Z", "UTC", "2024-03-01 12:00:00.123456"),
        # Clocks went from 02:00 to 03:00, and back from 03:00 to 02:00.
        ("2024-03-31 02:30:00", "Europe/Berlin", "2024-03-31 01:30:00"),
        ("2024-03-31 02:45:00", "Europe/Berlin", "2024-03-31 01:45:00"),
        ("2024-10-27 02:30:00", "Europe/Berlin", "2024-10-27 00:30:00"),
        ("2024-10-27T02:30:00+01:00", "Europe/Berlin", "2024-10-27 01:30:00"),
    ],
)
def test_an_offset_in_the_text_wins_and_other_text_is_local(text: str, zone: str, expected: str) -> None:
    assert time(text, zone) == expected


@pytest.mark.parametrize(
    ("how", "value", "expected"),
    [
        ("epoch_seconds", 1709294400, "2024-03-01 12:00:00"),
        ("epoch_seconds", "1709294400.25", "2024-03-01 12:00:00.250000"),
        ("epoch_millis", "1709294400123", "2024-03-01 12:00:00.123000"),
        ("epoch_millis", 1709294400123.0, "2024-03-01 12:00:00.123000"),
        ("epoch_micros", 1709294400123456, "2024-03-01 12:00:00.123456"),
        ("epoch_nanos", 1709294400123456789, "2024-03-01 12:00:00.123456"),
        ("epoch_nanos", -1, "1969-12-31 23:59:59.999999"),
        ("dd.MM.yyyy HH:mm", "01.03.2024 12:00", "2024-03-01 12:00:00"),
        ("%d/%m/%Y", "01/03/2024", "2024-03-01 00:00:00"),
        ("yyyyMMdd", 20240301, "2024-03-01 00:00:00"),
        ("epoch_seconds", 1709637602.123, "2024-03-05 11:20:02.123000"),
        ("iso", "2024-03-01T12:00:00+01:00[Europe/Berlin]", "2024-03-01 11:00:00"),
        ("yyyy-MM-dd'T'HH:mm:ssXXX", "2024-03-01T12:00:00+02:00", "2024-03-01 10:00:00"),
    ],
)
def test_numbers_and_patterns_are_read_by_their_format(how: str, value: object, expected: str) -> None:
    assert check_format(how) == how
    assert time(value, how=how) == expected


@pytest.mark.parametrize(
    "value",
    [
        "yesterday", "2024-02-30", "2024-03-01 24:00:00", "2024-03-01 12:60", "1709294400", 1709294400, True,
        "2024-03-01T12:00:00+25:00", "2024-03-01 12:00 Mars/Base", "0000-01-01", [], "2024", "٢٠٢٤-٠٣-٠١",
        "2024-03-05-02", "2024-03-05+9", "2024-03-05-0200",
    ],
)  # fmt: skip
def test_a_value_that_is_no_time_is_unreadable(value: object) -> None:
    assert time(value) is None
    with pytest.raises(Unreadable, match="unreadable_timestamp"):
        read_value(value, WantedColumn("event_ts", "timestamp", "t"), RULES)


@pytest.mark.parametrize("value", ["1_709", "١٧٠٩", " ", "1709s", "0x1f", "nan", "1e400"])
def test_text_that_is_no_number_is_no_epoch(value: str) -> None:
    assert time(value, how="epoch_seconds") is None


def test_a_date_takes_an_offset_that_is_written_in_full() -> None:
    assert time("2024-03-05+09:00") == "2024-03-04 15:00:00"
    assert time("2024-03-05Z", "Europe/Berlin") == "2024-03-05 00:00:00"


def test_a_format_that_cannot_be_read_is_refused() -> None:
    for wrong, message in (
        ("QQ yyyy", "because of 'QQ'"), ("HH:mm", "no year"), ("%Y %Z", "zone by name"),
        ("yyyy hh", "no a.m."), ("%Q%Y", "strptime"), ("yyyy ss.SSSSSSSSS", "'SSSSSSSSS'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            to_python(wrong)
    with pytest.raises(ValueError, match="'Mars/Base' is not a time zone"):
        IngestSettings(source_timezone="Mars/Base")
    for zone in ("Factory", "localtime", "right/Europe/Berlin"):  # Java does not know these
        with pytest.raises(ValueError, match="is not a time zone"):
            IngestSettings(source_timezone=zone)
    for encoding in ("latin-99", "rot13", "hex", "undefined", "idna"):
        with pytest.raises(ValueError, match="is not a text encoding"):
            IngestSettings(encoding=encoding)


def test_numbers_keep_all_of_their_digits_or_are_refused() -> None:
    column = WantedColumn("id", "string", "id", is_id=True)
    digits = ["1234567890123456789012345678.0000000001", "1234567890123456789012345678.0000000002"]
    found = read_column(pa.array([Decimal(d) for d in digits], pa.decimal128(38, 10)), column, RULES)
    assert found.values.to_pylist() == digits
    narrow = read_column(pa.array([16777216.0, 16777218.0, 7.0], pa.float32()), column, RULES)
    assert narrow.values.to_pylist() == ["16777216", None, "7"]
    assert narrow.problems == {1: "inexact_number"}


def test_dates_that_python_cannot_represent_are_unreadable() -> None:
    column = WantedColumn("event_ts", "timestamp", "t", required=True)
    berlin = ValueRules(NULLS, TimeRule("iso", "Europe/Berlin"))
    for values in (
        pa.array([3_000_000, 19787], pa.int32()).cast(pa.date32()),
        pa.array([1 << 62, 0], pa.int64()).cast(pa.timestamp("us")),
    ):
        found = read_column(values, column, berlin)
        assert found.problems == {0: "unreadable_timestamp"}
        assert found.values[1].is_valid
        assert combine([found], [column], [values]).field("_value").to_pylist()[0]


VALUES: dict[str, Any] = {
    "int64": st.integers(-(1 << 63), (1 << 63) - 1),
    "float64": st.floats() | st.integers(-(1 << 60), 1 << 60).map(float),
    "string": st.text(max_size=8)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["NULL", " 7 "]),
    "bool": st.booleans(),
    "date32": st.dates(),
    "binary": st.binary(max_size=4),
}
TYPES = {
    "int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "bool": pa.bool_(),
    "date32": pa.date32(), "binary": pa.binary(),
}  # fmt: skip


@settings(derandomize=True, max_examples=200)
@given(st.data(), st.sampled_from(sorted(VALUES)), st.booleans())
def test_an_arrow_array_is_read_like_its_values(data: st.DataObject, kind: str, is_id: bool) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=12))
    array = pa.array(values, TYPES[kind])
    for wanted in ("bigint", "string", "double", "boolean", "date", "timestamp", "array<string>"):
        column = WantedColumn("x", wanted, "x", is_id=is_id and wanted in ("bigint", "string"))
        fast, slow = read_column(array, column, RULES), read_column(values, column, RULES)
        assert fast.values.to_pylist() == slow.values.to_pylist()
        assert fast.problems == slow.problems


ZONES = ["Europe/Berlin", "Asia/Tokyo", "America/St_Johns", "Australia/Lord_Howe"]
MOMENTS = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2037, 1, 1))


@settings(derandomize=True, max_examples=200)
@given(MOMENTS, st.sampled_from(ZONES))
def test_local_times_from_arrow_and_text_agree_with_zoneinfo(moment: dt.datetime, zone: str) -> None:
    rules = ValueRules(NULLS, TimeRule("iso", zone))
    column = WantedColumn("event_ts", "timestamp", "t")
    array = pa.array([moment], pa.timestamp("us"))
    (from_arrow,) = read_column(array, column, rules).values.to_pylist()
    (from_text,) = read_column([moment.isoformat(" ")], column, rules).values.to_pylist()
    expected = moment.replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)
    assert from_arrow == from_text == expected


def test_numbers_that_are_not_finite_are_null_or_unreadable() -> None:
    column = WantedColumn("price", "double", "price")
    found = read_column(["1.5", "inf", "nan", "-1e3", "1,5", "0x1", True], column, RULES)
    assert found.values.to_pylist() == [1.5, None, None, -1000.0, None, None, 1.0]
    assert found.problems == {1: "wrong_type", 4: "wrong_type", 5: "wrong_type"}
