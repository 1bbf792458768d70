"""Decide whether a stored value or a rejected row names a person: plain functions over text.

Every id is read by ingest's own rule (`values.read_id`): the `042` of a command line, a stored id, and a
field of a rejected row.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipelines.udfs.values import read_id
from pipelines.udfs.whole_numbers import Unreadable

CORRUPT = "_corrupt_record"  # the name that Spark's readers give to the text of an unreadable line
USER = "user_id"  # the column that holds the user where the settings name no other
DELIMITERS = (",", ";", "\t", "|")
NUMBER = re.compile(r"(?<![\w.+-])[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?(?![\w-])(?!\.[0-9])")
# A time; its minutes and seconds are not ids.
TIME = re.compile(
    r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
)
LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)  # a string of JSON
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
SHORT_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True)
class Person:
    """A user's id, in the form that ingest stores, and the rules by which sources write ids."""

    id: int | str
    type: str  # `bigint` or `string`
    nulls: frozenset[str]  # text that means null, in lower case
    columns: Mapping[str, str]  # source -> the column of the source that holds the user
    delimiters: tuple[str, ...] = DELIMITERS  # between the fields of a line

    def matches(self, value: object) -> bool:
        """Whether a value, read by ingest's rule, is this person's id."""
        try:
            return bool(read_id(value, self.type, self.nulls) == self.id)
        except (Unreadable, ArithmeticError):
            return False


def read_person(
    user: str, type_: str, nulls: Iterable[str], columns: Mapping[str, str], delimiter: str = ","
) -> Person | None:
    """Return the person that an operator's text names, or None when the text means null.

    Args:
        user: the text.
        type_: the type of ids: `bigint` or `string`.
        nulls: text that means null, in any case.
        columns: for each source that has users, the column that holds them.
        delimiter: the delimiter of the source's lines; the usual delimiters are tried as well.

    Raises:
        Unreadable: the text is not an id of this type.
    """
    empty = frozenset(text.strip().lower() for text in nulls)
    try:
        found = read_id(user, type_, empty)
    except ArithmeticError as error:
        raise Unreadable("wrong_type") from error
    if found is None or found == "":
        return None
    return Person(found, type_, empty, columns, tuple(dict.fromkeys((delimiter, *DELIMITERS))))


def names_person(person: Person, source: str | None, row: str | None, user_id: str | None = None) -> bool:
    """Whether a rejected row names the person.

    Args:
        person: whom to look for.
        source: the source of the row, or None if it is unknown; one outside `person.columns` has no users.
        row: the row as JSON under the source's own names, or the line as it was delivered.
        user_id: the id that ingest read from the row, if it could.
    """
    if user_id is not None and person.matches(user_id):
        return True
    if row is None or (source is not None and source not in person.columns):
        return False
    found = _read_object(row)
    if found is not None:
        return _object_names(person, found, source)
    # Ingest read another user's id from the line. What follows a line break may belong to another line.
    if user_id is not None and "\n" not in row.strip():
        return False
    return text_names(person, row)


def _object_names(person: Person, found: list[tuple[str, Any]], source: str | None) -> bool:
    torn = [value for name, value in found if name == CORRUPT and isinstance(value, str)]
    names = {person.columns[source]} if source is not None else set(person.columns.values())
    if not names & {name for name, _ in found}:
        names = {USER}  # the settings may have named another column when the row was delivered
    users = [value for name, value in found if name in names and value is not None]
    # The text decides for a value that is not an id at all, such as a list of ids.
    unclear = [_as_text(value) for value in users if not _is_id(person, value)]
    return any(map(person.matches, users)) or any(text_names(person, text) for text in (*torn, *unclear))


def _is_id(person: Person, value: object) -> bool:
    try:
        read_id(value, person.type, person.nulls)
    except (Unreadable, ArithmeticError):
        return False
    return True


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _read_object(text: str) -> list[tuple[str, Any]] | None:
    """Read the names and values of a JSON object, repeated names included; return None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text, parse_float=Decimal, object_pairs_hook=_Pairs, strict=False)
    except (ValueError, RecursionError, ArithmeticError):
        return None
    return list(found) if isinstance(found, _Pairs) else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object; a `dict` would keep only the last of repeated names."""


def text_names(person: Person, text: str) -> bool:
    """Whether any field or word of a text is the person's id, even if it is quoted or escaped."""
    forms = dict.fromkeys((text, text.replace('""', '"'), _unescape(text)))
    if any(person.matches(field) for form in forms for field in _fields(form, person.delimiters)):
        return True
    if any(person.matches(_unescape(literal[1:-1])) for literal in LITERAL.findall(text)):
        return True
    if any(person.matches(number) for form in forms for number in NUMBER.findall(TIME.sub(" ", form))):
        return True
    word = _word(person.id) if isinstance(person.id, str) else None
    return word is not None and any(word.search(form) for form in forms)


def _fields(text: str, delimiters: Iterable[str]) -> Iterator[str]:
    """Yield the fields of a text in every usual dialect of CSV, and its words."""
    for delimiter in delimiters:
        try:
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True):
                yield from row
        except (csv.Error, TypeError):  # the text is not CSV, or the delimiter has several letters
            pass
        yield from (field.strip(" '\"") for field in text.split(delimiter))
    for word in text.split():
        yield word
        yield word.strip("'\"()[]{}<>,;:=|")


def _word(id_: str) -> re.Pattern[str] | None:
    """Make a pattern for the id as a whole word; return None for an id that has no letters or digits."""
    if not re.search(r"\w", id_):
        return None
    before = r"(?<![\w-])" if re.match(r"[\w-]", id_) else ""
    after = r"(?![\w-])" if re.search(r"[\w-]\Z", id_) else ""
    return re.compile(before + re.escape(id_) + after)


def _unescape(text: str) -> str:
    """Undo the escapes of JSON in a text, even in a part of an object."""

    def plain(found: re.Match[str]) -> str:
        return chr(int(found[1], 16)) if found[1] else SHORT_ESCAPES.get(found[2], found[2])

    # Escapes write a character above U+FFFF as two halves.
    halves = ESCAPE.sub(plain, text).encode("utf-16", "surrogatepass")
    return halves.decode("utf-16", "replace")
