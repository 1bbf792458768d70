"""Values of a drop as the settings declare them: one rule for a type, whatever format delivered the value.

A value is what a Python reader of the format returns: text, a number, a boolean, a date, a time, bytes, or a
list. `value_columns.py` reads whole arrays by the same rule.
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

REPLACEMENT = "\ufffd"  # what decoders put where the bytes are no text
EXACT = 1 << 53  # every whole number up to this has a float64 of its own
MOST_DIGITS = 40  # of a whole number that is written with an exponent
INTEGER = re.compile(r"[+-]?[0-9]+")
WHOLE = re.compile(r"[+-]?[0-9]+\.0*")
EXPONENT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]{1,3}")
# As programs write a whole float: 123.0, 1.2345678E7, 1e+16. A product code such as 12E4 is none of these.
WRITTEN_FLOAT = re.compile(
    r"-?(?:0|[1-9][0-9]*)\.0+|-?[0-9]\.[0-9]+[eE][+-]?[0-9]{1,3}|-?[0-9]+[eE]\+[0-9]{1,3}"
)
FLOAT = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?|[+-]?inf(?:inity)?", re.IGNORECASE
)
FLAGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}


class Unreadable(ValueError):
    """A value is not what its column declares; `str` of it is the reason."""


class WrittenFloat(Decimal):
    """A number that was written with a fraction or an exponent, as floats are."""


class Inexact(float):
    """A float that may stand for several whole numbers."""


class WantedColumn(NamedTuple):
    """One of our columns: its SQL type, its source column, whether a row needs it, whether it is an id."""

    name: str
    type: str
    source: str
    required: bool = False
    is_id: bool = False

    @property
    def shown(self) -> str:
        """Its name in a reason; of a column that is only ours, that of the source."""
        return self.source if self.name.startswith("_") else self.name


@dataclass(frozen=True)
class ValueRules:
    """What the settings say of values: text that means null (lower case), and how times are written."""

    nulls: frozenset[str]
    time: TimeRule = field(default_factory=TimeRule)


def read_id(value: object, type_: str, nulls: frozenset[str]) -> int | str | None:
    """The one form of an id, as ingest stores it; None for a value that names nobody.

    Args:
        value: as a reader of the source or an operator's command line gives it.
        type_: `bigint` or `string`.
        nulls: lower-case text that names nobody.

    Raises:
        Unreadable: the value is no id of this type.
    """
    return read_value(value, WantedColumn("id", type_, "id", is_id=True), ValueRules(nulls))


def read_value(value: object, wanted: WantedColumn, rules: ValueRules) -> Any:
    """One value as its column declares it, None for null.

    Raises:
        Unreadable: with the reason: `wrong_type`, `invalid_text`, `inexact_number` or `unreadable_timestamp`.
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
    """Whether the text can be written as UTF-8 and holds no mark of bytes that were none."""
    if REPLACEMENT in value:
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _whole(value: object, wanted: WantedColumn, rules: ValueRules) -> int:
    number = _to_whole(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise Unreadable("wrong_type")
    return number


def _to_whole(value: object) -> int:
    """A whole number, however it is written; not a boolean, a fraction or other text."""
    if isinstance(value, bool):
        raise Unreadable("wrong_type")
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise Unreadable("wrong_type")
        if isinstance(value, Inexact) or abs(value) > EXACT:
            raise Unreadable("inexact_number")
        return int(value)
    if isinstance(value, str):
        if INTEGER.fullmatch(value) and len(value) <= MOST_DIGITS:
            return int(value)
        if not (WHOLE.fullmatch(value) or EXPONENT.fullmatch(value)):
            raise Unreadable("wrong_type")
        value = WrittenFloat(value)
    if isinstance(value, WrittenFloat) and value.is_finite() and value.copy_abs() > EXACT:
        raise Unreadable("inexact_number")
    bounded = isinstance(value, Decimal) and value.is_finite() and value.adjusted() < MOST_DIGITS
    if isinstance(value, Decimal) and bounded and value == value.to_integral_value():
        return int(value)
    raise Unreadable("wrong_type")


def _text(value: object, wanted: WantedColumn, rules: ValueRules) -> str:
    """Text; a whole number is written without a fraction or an exponent, so that one number is one text."""
    if isinstance(value, str):
        return _plain_number(WrittenFloat(value), value, wanted) if WRITTEN_FLOAT.fullmatch(value) else value
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
        return _plain_number(value, text.rstrip("0").rstrip(".") if "." in text else text, wanted)
    if isinstance(value, dt.datetime):
        if wanted.is_id:
            raise Unreadable("wrong_type")
        return value.isoformat(sep=" ")
    if isinstance(value, dt.date):
        return value.isoformat()
    if wanted.is_id:
        raise Unreadable("wrong_type")
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain_number(number: Decimal, text: str, wanted: WantedColumn) -> str:
    """The digits of a whole number; of any other number, its text."""
    if number.adjusted() >= MOST_DIGITS or number != number.to_integral_value():
        return text
    if isinstance(number, WrittenFloat) and number.copy_abs() > EXACT:
        if wanted.is_id:
            raise Unreadable("inexact_number")
        return text
    return str(int(number))


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
    if local is None and isinstance(value, str):  # a day needs no format of its own
        local = TimeRule().read_local(value)
    if local is None:
        raise Unreadable("wrong_type")
    return local.date()


def _time(value: object, wanted: WantedColumn, rules: ValueRules) -> int:
    """Microseconds since 1970 UTC."""
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
