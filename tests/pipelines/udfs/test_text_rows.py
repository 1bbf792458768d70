"""Lines of CSV and JSON become rows: every written row is read, and no broken line becomes a row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelines.settings.ingest import IngestSettings
from pipelines.udfs.text_files import TextSpec
from pipelines.udfs.text_rows import read_contents, read_file
from pipelines.udfs.values import WantedColumn

RULES = IngestSettings(null_values=[]).rules
WANTED = (
    WantedColumn("user_id", "string", "user", required=True, is_id=True),
    WantedColumn("event_ts", "timestamp", "time", required=True),
    WantedColumn("label", "double", "label"),
)
TIME = "2024-03-01 10:00:00"


def spec(how: str = "csv", **options: Any) -> TextSpec:
    return TextSpec(how, WANTED, ("note",), RULES, **options)  # type: ignore[arg-type]


def read(text: str | bytes, options: TextSpec) -> list[dict[str, Any]]:
    """Read a file: return its rows, its header and its faults."""
    data = text.encode() if isinstance(text, str) else text

    def lines() -> Iterator[bytes]:  # Spark splits a file at \r\n, \n and \r
        yield from data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n").split(b"\n")

    return [row for batch in read_file("f", 0, lines(), options) for row in batch.to_pylist()]


def rows_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in found if row["_status"] == "row"]


def good(found: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """Return the user and the note of each good row."""
    return [(row["user_id"], row["_where_0"]) for row in rows_of(found) if row["_reason"] is None]


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\ufffd\x00"), max_size=12)


@settings(derandomize=True, max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from([",", ";", "\t", "|"]), st.booleans())
def test_csv_is_read_as_pandas_and_the_standard_library_write_it(
    notes: list[str], delimiter: str, by_pandas: bool
) -> None:
    table = pd.DataFrame({"user": [f"u{i}" for i in range(len(notes))], "time": TIME, "note": notes})
    if by_pandas:
        text = table.to_csv(sep=delimiter, index=True)  # the index is one more column, without a name
    else:
        sink = io.StringIO()
        writer = csv.writer(sink, delimiter=delimiter)
        writer.writerows([list(table.columns), *table.itertuples(index=False)])
        text = sink.getvalue()
    found = read(text, spec(delimiter=delimiter))
    assert good(found) == [(f"u{i}", note if note.strip() else None) for i, note in enumerate(notes)]
    assert len(rows_of(found)) == len(notes)


@pytest.mark.parametrize(
    ("lines", "malformed", "loaded"),
    [
        # A field is opened and never closed: no line below it becomes a row.
        (['u1,{t},"never closed', "u2,{t},x", "u3,{t},y"], 3, []),
        # A quote is in a quoted field of several lines: the middle line is no row of a user u9.
        (['u1,{t},"he said "hi" and', "u9,{t},phantom", 'the end"', "u2,{t},x"], 3, ["u2"]),
        # A broken line with an even number of quotes is one bad row.
        (['u1,{t},"say "hi" there"', "u2,{t},x"], 1, ["u2"]),
        (["u1,{t}", "u2,{t},x,y", "u3,{t},z"], 2, ["u3"]),
        (["", "u1,{t},x", ""], 0, ["u1"]),
        (['u1,{t},5" pipe', "u2,{t},x"], 0, ["u1", "u2"]),
    ],
)
def test_a_part_of_a_broken_row_is_not_read_as_a_row(
    lines: list[str], malformed: int, loaded: list[str]
) -> None:
    found = read("\n".join(["user,time,note", *lines]).format(t=TIME), spec())
    assert [user for user, _ in good(found)] == loaded
    bad = [row for row in rows_of(found) if row["_reason"] == "malformed_row"]
    assert len(bad) == malformed
    first = next(
        (i for i, line in enumerate(lines) if line and line.format(t=TIME) in [r["_raw"] for r in bad]), 0
    )
    assert not bad or bad[0]["_location"] == f"line {first + 2}"


@settings(derandomize=True, max_examples=300)
@given(st.binary(max_size=60), st.sampled_from(["csv", "json"]))
def test_no_bytes_cause_an_error(data: bytes, how: str) -> None:
    head = b"user,time,note\n" if how == "csv" else b""
    for row in rows_of(read(head + data, spec(how))):
        assert row["_reason"] is not None or row["user_id"]
        assert row["_location"]
        for name in ("_raw", "_value", "_where_0"):
            assert row[name] is None or row[name].encode()  # valid UTF-8


@settings(derandomize=True, max_examples=150)
@given(
    st.lists(st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3), max_size=5)
)
def test_every_json_line_is_one_row(objects: list[dict[str, Any]]) -> None:
    lines = [json.dumps({**each, "user": f"u{i}", "time": TIME}) for i, each in enumerate(objects)]
    assume(not any({"user", "time"} & each.keys() for each in objects))
    found = read("\n".join(lines), spec("json"))
    assert [user for user, _ in good(found)] == [f"u{i}" for i in range(len(objects))]


def test_json_numbers_are_numbers_and_text_is_text() -> None:
    lines = [
        f'{{"user": {value}, "time": "{TIME}"}}'
        for value in ("12345678", "1.2345678E7", '"12345678.0"', "true")
    ]
    lines += ['[{"user": 7, "time": "2024-03-01"}]', '{"user": 1, "user": 2}', "[1]", "{"]
    found = read("\n".join(lines), spec("json"))
    assert [user for user, _ in good(found)] == ["12345678"] * 3 + ["7"]
    reasons = [row["_reason"] for row in rows_of(found) if row["_reason"]]
    assert reasons == ["wrong_type:user_id"] + ["malformed_row"] * 3


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"user,when\na,b", {}, r"required column 'time' \(our event_ts\) is missing; .*'when'"),
        (b"user,time,user\na,b,c", {}, "the header has 'user' 2 times"),
        ("user,time\na,b".encode("utf-16"), {}, "this file is utf-16; set ingest.encoding: utf-16"),
        (b"\x1f\x8b\x08\x00rubbish", {}, "this file is gzip, not text"),
        (b"PAR1rubbish", {}, "this file is Parquet, not text"),
    ],
)  # fmt: skip
def test_the_reason_why_a_file_cannot_be_read_is_reported(
    data: bytes, options: dict[str, Any], message: str
) -> None:
    found = read(data, spec(**options))
    (fault,) = [row for row in found if row["_status"] == "fault"]
    assert re.search(message, fault["_value"])


def test_encodings_dialects_and_files_without_a_header_are_read() -> None:
    text = f"user,time,note\nJosé,{TIME},Käse"
    assert good(read(text.encode("cp1252"), spec(encoding="cp1252"))) == [("José", "Käse")]
    (row,) = rows_of(read(text.encode("cp1252"), spec()))
    assert row["_reason"] == "invalid_text:user_id"
    wide = {"file": ["f"], "content": [text.encode("utf-16")]}

    batches = list(read_contents([pa.RecordBatch.from_pydict(wide)], spec(encoding="utf-16"), None))
    assert good([row for batch in batches for row in batch.to_pylist()]) == [("José", "Käse")]
    assert good(read("\ufeff" + text, spec())) == [("José", "Käse")]
    header = ("user", "time", "note")
    assert good(read(f"a::{TIME}::x", spec(delimiter="::", quote=None, header=header))) == [("a", "x")]
    assert good(read(f"a;{TIME};'x;y'", spec(delimiter=";", quote="'", header=header))) == [("a", "x;y")]
    assert good(read(f'a,{TIME},"x\\"y"', spec(escape="\\", header=header))) == [("a", 'x"y')]
