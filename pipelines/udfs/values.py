"""Read the values of drops as the settings declare them: each type has one rule for all file formats.

A value is what a Python reader of the format returns: text, a number, a boolean, a date, a time, bytes or a
list. `value_columns.py` reads whole arrays by the same rules.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from pipelines.udfs.times import TimeRule
from pipelines.udfs.whole_numbers import (
    EXACT,
    MOST_DIGITS,
    WRITTEN_FLOAT,
    Inexact,
    Unreadable,
    WrittenFloat,
    plain_number,
    to_whole,
)

REPLACEMENT = "\ufffd"  # decoders put this where bytes are not text
FLOAT = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?|[+-]?inf(?:inity)?", re.IGNORECASE
)
FLAGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}


class WantedColumn(NamedTuple):
    """One of our columns, and where a source has it."""

    name: str
    type: str  # in SQL
    source: str  # the source column
    required: bool = False  # whether a row without a value is bad
    is_id: bool = False

    @property
    def shown(self) -> str:
        """The name of the column in a reason; an internal column has the name of its source column."""
        return self.source if self.name.startswith("_") else self.name


@dataclass(frozen=True)
class ValueRules:
    """How the settings say that values are written."""

    nulls: frozenset[str]  # text that means null, in lower case
    time: TimeRule = field(default_factory=TimeRule)


def read_id(value: object, type_: str, nulls: frozenset[str]) -> int | str | None:
    """Read an id in the one form that ingest stores; return None for a value that means null.

    Args:
        value: what a reader of the source or an operator's command line gives.
        type_: `bigint` or `string`.
        nulls: the text that means null, in lower case.

    Raises:
        Unreadable: the value is not an id of this type.
    """
    return read_value(value, WantedColumn("id", type_, "id", is_id=True), ValueRules(nulls))


def read_value(value: object, wanted: WantedColumn, rules: ValueRules) -> Any:
    """Read one value as its column declares it; return None for null.

    Args:
        value: what a reader of the source gives.
        wanted: the column.
        rules: how values are written.

    Raises:
        Unreadable: the value is not what the column declares; the reason is `wrong_type`,
            `invalid_text`, `inexact_number` or `unreadable_timestamp`.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        value = value.strip()
        if value.lower() in rules.nulls:
            return None
        if not _is_text(value):
            raise Unreadable("invalid_text")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, Decimal) and value.is_nan():
        return None
    return _READERS[wanted.type](value, wanted, rules)


def _is_text(value: str) -> bool:
    """Whether the text can be written as UTF-8 and has no mark of bytes that could not be decoded."""
    if REPLACEMENT in value:
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _whole(value: object, wanted: WantedColumn, rules: ValueRules) -> int:
    number = to_whole(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise Unreadable("wrong_type")
    return number


def _text(value: object, wanted: WantedColumn, rules: ValueRules) -> str:
    """Read a value as text; a whole number loses fraction and exponent, so that one number is one text."""
    if isinstance(value, str):
        if WRITTEN_FLOAT.fullmatch(value):
            return plain_number(WrittenFloat(value), value, is_id=wanted.is_id)
        return value
    if isinstance(value, bool):
        if wanted.is_id:
            raise Unreadable("wrong_type")
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unreadable("wrong_type")
        if wanted.is_id and (isinstance(value, Inexact) or abs(value) > EXACT):
            raise Unreadable("inexact_number")
        return str(int(value)) if value.is_integer() and abs(value) <= EXACT else repr(value)
    if isinstance(value, Decimal):
        if not value.is_finite() or abs(value.adjusted()) > MOST_DIGITS:
            raise Unreadable("wrong_type")
        text = format(value, "f")
        return plain_number(value, text.rstrip("0").rstrip(".") if "." in text else text, is_id=wanted.is_id)
    if isinstance(value, dt.datetime):
        if wanted.is_id:
            raise Unreadable("wrong_type")
        return value.isoformat(sep=" ")
    if isinstance(value, dt.date):
        return value.isoformat()
    if wanted.is_id:
        raise Unreadable("wrong_type")
    return json.dumps(value, ensure_ascii=False, default=str)


def _number(value: object, wanted: WantedColumn, rules: ValueRules) -> float | None:
    if isinstance(value, bool | int | float | Decimal) or (isinstance(value, str) and FLOAT.fullmatch(value)):
        found = float(value)
    elif isinstance(value, str) and value.lower() in ("true", "false"):
        found = float(value.lower() == "true")
    else:
        raise Unreadable("wrong_type")
    if math.isinf(found):
        raise Unreadable("wrong_type")
    return None if math.isnan(found) else found


def _flag(value: object, wanted: WantedColumn, rules: ValueRules) -> bool:
    if isinstance(value, int | float | Decimal) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in FLAGS:
        return FLAGS[value.lower()]
    raise Unreadable("wrong_type")


def _day(value: object, wanted: WantedColumn, rules: ValueRules) -> dt.date:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    local = rules.time.read_local(value)
    if local is None and isinstance(value, str):  # a date is also read without the format of times
        local = TimeRule().read_local(value)
    if local is None:
        raise Unreadable("wrong_type")
    return local.date()


def _time(value: object, wanted: WantedColumn, rules: ValueRules) -> int:
    """Read a time as microseconds since 1970 UTC."""
    found = rules.time.read_micros(value)
    if found is None:
        raise Unreadable("unreadable_timestamp")
    return found


def _list(value: object) -> Sequence[object]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unreadable("wrong_type") from None
    if not isinstance(value, list | tuple):
        raise Unreadable("wrong_type")
    return list(value)


def _texts(value: object, wanted: WantedColumn, rules: ValueRules) -> list[str | None]:
    one = WantedColumn(wanted.name, "string", wanted.source)
    return [read_value(each, one, rules) for each in _list(value)]


def _numbers(value: object, wanted: WantedColumn, rules: ValueRules) -> list[float | None]:
    one = WantedColumn(wanted.name, "double", wanted.source)
    return [read_value(each, one, rules) for each in _list(value)]


_READERS: dict[str, Callable[[object, WantedColumn, ValueRules], Any]] = {
    "bigint": _whole,
    "string": _text,
    "double": _number,
    "boolean": _flag,
    "date": _day,
    "timestamp": _time,
    "array<string>": _texts,
    "array<double>": _numbers,
}
