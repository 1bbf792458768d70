"""A person is found in a value or a rejected row in every spelling and layout, and no other user is."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.udfs.person import Person, names_person, read_person
from pipelines.udfs.whole_numbers import Unreadable

NULLS = ("", "NULL", "\\n", "NaN", "none")
COLUMNS = {"events": 'user `id`.x "y"', "users": "customer"}
# Words for the rest of a row; no id of these tests equals one.
OTHERS = ["9000001", "milk", "2024-05-01T10:00:42", "a_42", "x"]

longs = st.integers(-(10**15), 10**15).filter(lambda number: str(number) not in OTHERS)
texts = st.one_of(
    st.text(min_size=1, max_size=8),
    st.text(st.sampled_from("*?[]:\"'\\\n,;`{}é𝔘 a4"), min_size=1, max_size=8),
    st.integers(0, 999).map(str),
)


def person_of(id_: int | str) -> Person | None:
    try:
        return read_person(str(id_), "bigint" if isinstance(id_, int) else "string", NULLS, COLUMNS)
    except Unreadable:
        return None


def spellings(number: int) -> list[str]:
    """List the spellings in which programs write a whole number."""
    sign, digits = ("-" if number < 0 else ""), str(abs(number))
    return [
        str(number), f" {number}", f"{number}\t", f"{sign}00{digits}",
        f"{number}.0", f"{number}.", f"{number}.00",
        f"{sign}{digits[0]}.{digits[1:] or '0'}E{len(digits) - 1}",
        f"{sign}{digits[0]}.{digits[1:] or '0'}e+{len(digits) - 1:02d}",
    ]  # fmt: skip


def as_csv(fields: list[str], **dialect: Any) -> str:
    """Write fields as one line of CSV."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", **dialect).writerow(fields)
    return out.getvalue()


def layouts(value: str, raw: str) -> list[tuple[str, str]]:
    """List rejected rows, as source and row, that hold a user: `value` as text, `raw` as JSON."""
    rows = []
    for source, name in COLUMNS.items():
        key = json.dumps(name)
        whole = f'{{"item": {json.dumps(OTHERS[1])}, {key}: {raw}, "ts": "{OTHERS[2]}"}}'
        lines = [
            as_csv([value, *OTHERS]), as_csv([*OTHERS, value]),
            as_csv([OTHERS[0], value], quoting=csv.QUOTE_ALL),
            as_csv([OTHERS[0], value, "torn"], delimiter=";")[:-6],
            as_csv([value, OTHERS[1]], delimiter="\t"),
            f'{{{key}: {raw}, "item": "to', f'[{raw}, "{OTHERS[1]}"]', raw,
        ]  # fmt: skip
        rows += [(source, whole), (source, f'{{"item": 1, {key}: 7, {key}: {raw}}}')]
        rows += [(source, json.dumps({"_corrupt_record": line})) for line in lines]
        rows += [(source, line) for line in lines]
    return rows


@given(longs)
def test_a_number_is_found_in_any_spelling_and_layout(number: int) -> None:
    person = person_of(number)
    assert person is not None
    for spelling in spellings(number):
        assert person_of(number) == read_person(spelling, "bigint", NULLS, COLUMNS)
        raws = [json.dumps(spelling)] + ([spelling] if is_json_number(spelling) else [])
        for raw in raws:
            for source, row in layouts(spelling, raw):
                assert names_person(person, source, row), row


@given(texts)
def test_a_text_is_found_in_any_layout(text: str) -> None:
    person = person_of(text)
    assume(person is not None)
    assert person is not None
    for value in (text, f" {text}", f"{text} "):
        for source, row in layouts(value, json.dumps(value)) + layouts(
            value, json.dumps(value, ensure_ascii=False)
        ):
            assert names_person(person, source, row), row


@given(longs, longs)
def test_a_number_is_not_found_in_rows_of_others(number: int, other: int) -> None:
    assume(number != other)
    person = person_of(number)
    assert person is not None
    for spelling in (
        *spellings(other),
        f"{number}.5",
        f"1{number}",
        f"{number}1",
        f"{number}-1",
        f"x{number}",
    ):
        if person.matches(spelling):
            continue
        for source, row in layouts(spelling, json.dumps(spelling)):
            assert not names_person(person, source, row), row


@given(texts, texts)
def test_only_the_user_column_of_a_whole_row_decides(one: str, other: str) -> None:
    person, another = person_of(one), person_of(other)
    assume(person is not None and another is not None and person.id != another.id)
    assert person is not None
    for source, name in COLUMNS.items():
        row = json.dumps({name: other, "item": one, "note": f"of {one}", f"{name}2": one})
        assert not names_person(person, source, row)
        assert names_person(person, source, json.dumps({name: one, "item": other}))


@pytest.mark.parametrize(
    ("source", "row", "user_id", "mine"),
    [
        ("events", "7,42,2024-05-01", "7", False),  # for a whole line, the id that ingest read decides
        (
            "events",
            '7,"torn\n42,1,2024-05-01',
            "7",
            True,
        ),  # it does not for a line that swallowed another one
        ("events", "anything", "42", True),
        ("users", None, "042", True),
        ("events", None, None, False),
        ("items", "42,milk", None, False),  # items have no users
        ("items", '{"customer": 42}', None, False),
        (None, '{"customer": 42}', None, True),
        ("users", '{"user `id`.x \\"y\\"": 42}', None, False),  # this is the column of the other source
        ("users", '{"user_id": 42}', None, True),  # the column was not mapped yet
        ("users", '{"user_id": 42, "customer": 7}', None, False),
        ("users", "x~~42~~7", None, True),
        ("users", '{"customer": [41, 42]}', None, True),  # a list may name several users
        ("users", '{"customer": "4 2"}', None, False),
        ("users", '{"customer": true}', None, False),
        ("users", '{"customer": ' + "[" * 100_000, None, False),
        ("users", '{"customer": ' + "4" * 5000 + "}", None, False),
        ("users", "\ufeff42;7", None, True),
        ("users", "\udcff42,7", None, True),
        ("users", "4.20E1 and more", None, True),
        ("users", "2024-05-01 10:42:42.42+0042 x", None, False),  # minutes and seconds are not ids
    ],
)
def test_the_user_column_or_the_text_decides_whether_a_row_names_the_person(
    source: str | None, row: str | None, user_id: str | None, mine: bool
) -> None:
    person = person_of(42)
    assert person is not None
    assert names_person(person, source, row, user_id) == mine


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("abc", "bigint"),
        ("4.5", "bigint"),
        ("1e30", "bigint"),
        ("9" * 5000, "bigint"),
        ("4\udcff", "string"),
        ("1E999999999999", "bigint"),
    ],
)
def test_a_text_that_is_no_id_is_refused(text: str, type_: str) -> None:
    with pytest.raises(Unreadable):
        read_person(text, type_, NULLS, {})


@pytest.mark.parametrize("text", ["", "  ", "NULL", " null", "\\N", "nan", "None"])
def test_a_text_that_means_null_names_no_person(text: str) -> None:
    assert read_person(text, "bigint", NULLS, {}) is None
    assert read_person(text, "string", NULLS, {}) is None


def is_json_number(text: str) -> bool:
    try:
        return not isinstance(json.loads(text), str)
    except ValueError:
        return False
