"""Whole numbers in the spellings of programs: which text, float or decimal is which whole number."""

from __future__ import annotations

import re
from decimal import Decimal

EXACT = 1 << 53  # every whole number up to this has a float64 of its own
MOST_DIGITS = 40  # digits of a whole number that is written with an exponent
INTEGER = re.compile(r"[+-]?[0-9]+")
WHOLE = re.compile(r"[+-]?[0-9]+\.0*")
EXPONENT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]{1,3}")
# How programs write whole floats: 123.0, 1.2345678E7, 1e+16. A product code such as 12E4 does not match.
WRITTEN_FLOAT = re.compile(
    r"-?(?:0|[1-9][0-9]*)\.0+|-?[0-9]\.[0-9]+[eE][+-]?[0-9]{1,3}|-?[0-9]+[eE]\+[0-9]{1,3}"
)


class Unreadable(ValueError):
    """A value is not what its column declares; the message is the reason."""


class WrittenFloat(Decimal):
    """A number that was written with a fraction or an exponent, as programs write floats."""


class Inexact(float):
    """A float that several whole numbers would be rounded to."""


def to_whole(value: object) -> int:
    """Read a whole number in any spelling.

    Raises:
        Unreadable: the value is a boolean, a fraction or other text, or a float that is not exact.
    """
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


def plain_number(number: Decimal, text: str, *, is_id: bool) -> str:
    """Return the digits of a whole number, and the unchanged text of any other number.

    Args:
        number: the value of the text.
        text: the number as it was written.
        is_id: whether the number is an id, which must be exact.

    Raises:
        Unreadable: the number is an id and not exact.
    """
    if number.adjusted() >= MOST_DIGITS or number != number.to_integral_value():
        return text
    if isinstance(number, WrittenFloat) and number.copy_abs() > EXACT:
        if is_id:
            raise Unreadable("inexact_number")
        return text
    return str(int(number))
