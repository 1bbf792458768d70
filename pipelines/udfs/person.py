"""Who a person is, and whether a stored value or a rejected row names them: plain functions over text.

An id is read as ingest reads it (`values.read_id`), whatever it is compared with: a command line's `042`, a
stored id, a field of a rejected row.
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

from pipelines.udfs.values import Unreadable, read_id

CORRUPT = "_corrupt_record"  # how Spark's readers call the text of a line that they could not read
USER = "user_id"  # the column that holds the user where the settings name no other
DELIMITERS = (",", ";", "\t", "|")
NUMBER = re.compile(r"(?<![\w.+-])[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?(?![\w-])(?!\.[0-9])")
# The minutes of a time are no ids.
TIME = re.compile(
    r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
)
LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)  # of JSON
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
SHORT_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True)
class Person:
    """A user by the one form of their id, and the names of it in sources."""

    id: int | str
    type: str  # `bigint` or `string`
    nulls: frozenset[str]  # lower-case text that names nobody
    columns: Mapping[str, str]  # source -> its column that holds the user
    delimiters: tuple[str, ...] = DELIMITERS  # between the fields of a line

    def matches(self, value: object) -> bool:
        """Whether a value, read as ingest would, is this person's id."""
        try:
            return bool(read_id(value, self.type, self.nulls) == self.id)
        except (Unreadable, ArithmeticError):
            return False


def read_person(
    user: str, type_: str, nulls: Iterable[str], columns: Mapping[str, str], delimiter: str = ","
) -> Person | None:
    """The person that an operator's text names, None when it names nobody.

    Args:
        delimiter: of the source's lines; usual ones are tried besides.

    Raises:
        Unreadable: the text is no id of this type.
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
    """Whether a rejected row is of the person.

    Args:
        source: which drop it came from; none of `person.columns` has no users.
        row: JSON under the source's own names, or the line as it came.
        user_id: the id that ingest read of it, if it could.
    """
    if user_id is not None and person.matches(user_id):
        return True
    if row is None or (source is not None and source not in person.columns):
        return False
    found = _read_object(row)
    if found is not None:
        return _object_names(person, found, source)
    # Ingest read somebody else's id off the line; what follows a line break may be another line, torn off.
    if user_id is not None and "\n" not in row.strip():
        return False
    return text_names(person, row)


def _object_names(person: Person, found: list[tuple[str, Any]], source: str | None) -> bool:
    torn = [value for name, value in found if name == CORRUPT and isinstance(value, str)]
    names = {person.columns[source]} if source is not None else set(person.columns.values())
    if not names & {name for name, _ in found}:
        names = {USER}  # the settings may have named another column when the row came
    users = [value for name, value in found if name in names and value is not None]
    # A value that is no id at all, such as a list of them: nobody knows what it says.
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
    """Names and values of a JSON object, a repeated name as often as it is there; None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text, parse_float=Decimal, object_pairs_hook=_Pairs, strict=False)
    except (ValueError, RecursionError, ArithmeticError):
        return None
    return list(found) if isinstance(found, _Pairs) else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object; `dict` would keep the last of equal names."""


def text_names(person: Person, text: str) -> bool:
    """Whether any field or word of a text is the person's id, however it is quoted or escaped."""
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
    """What any usual CSV dialect would make of the text, and its words."""
    for delimiter in delimiters:
        try:
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True):
                yield from row
        except (csv.Error, TypeError):  # no CSV, or a delimiter of several letters
            pass
        yield from (field.strip(" '\"") for field in text.split(delimiter))
    for word in text.split():
        yield word
        yield word.strip("'\"()[]{}<>,;:=|")


def _word(id_: str) -> re.Pattern[str] | None:
    """The id between ends of words; None for one without any letter, which is a field or nothing."""
    if not re.search(r"\w", id_):
        return None
    before = r"(?<![\w-])" if re.match(r"[\w-]", id_) else ""
    after = r"(?![\w-])" if re.search(r"[\w-]\Z", id_) else ""
    return re.compile(before + re.escape(id_) + after)


def _unescape(text: str) -> str:
    """The text with the escapes of JSON undone, even of a torn piece."""

    def plain(found: re.Match[str]) -> str:
        return chr(int(found[1], 16)) if found[1] else SHORT_ESCAPES.get(found[2], found[2])

    # Escapes write a letter beyond the first 65,536 as two halves.
    halves = ESCAPE.sub(plain, text).encode("utf-16", "surrogatepass")
    return halves.decode("utf-16", "replace")
