"""Read the times of drops: text, numbers, dates and local times become instants.

An offset in the text wins over the source's zone; text without an offset is local to the zone. A local time
that clocks showed twice (when summer time ends) is the first of the two instants. A local time that no clock
showed (when summer time begins) moves forward by the gap: 02:30 becomes 03:30. So no local time is refused,
and two different times of such an hour remain different. This is `fold=0` of PEP 495.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Microseconds of each unit; nanoseconds are divided by 1,000 instead.
EPOCHS = {"epoch_seconds": 1_000_000, "epoch_millis": 1_000, "epoch_micros": 1, "epoch_nanos": 0}
AUTO = "iso"
EPOCH = dt.datetime(1970, 1, 1)
# The days of nights, whose neighbours are valid dates, too. A time outside them is a mistake, such as a zero.
FIRST_DAY, LAST_DAY = dt.date(1970, 1, 2), dt.date(2199, 12, 31)
MICROSECOND = dt.timedelta(microseconds=1)
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999, in microseconds
ISO = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:(?:T|t|\s+)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,12}))?)?)?"
    # Java writes a zone in brackets after an offset; the offset decides.
    r"\s*(Z|z|UTC|GMT|[+-]\d{1,2}(?::?\d{2}){0,2}|\[?[A-Za-z]+(?:/[A-Za-z0-9_+-]+)+\]?)?(?:(?<=[Zz\d])\[[A-Za-z0-9/_+-]+\])?",
    re.ASCII,
)
SHORT_OFFSET = re.compile(r"[+-]\d{1,4}", re.ASCII)  # an offset of a date alone is written +09:00, or Z
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
OFFSET = re.compile(r"([+-])(\d{1,2}):?(\d{2})?:?(\d{2})?")
# The letters of a pattern in Java's style, which Spark uses, longest first; a pattern with % is Python's.
LETTERS = {
    "yyyy": "%Y", "uuuu": "%Y", "yy": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "M": "%m", "dd": "%d",
    "d": "%d", "HH": "%H", "H": "%H", "hh": "%I", "h": "%I", "mm": "%M", "m": "%M", "ss": "%S", "s": "%S",
    "EEEE": "%A", "EEE": "%a", "E": "%a", "a": "%p", "XXX": "%z", "XX": "%z", "X": "%z", "xxx": "%z",
    "xx": "%z", "x": "%z", "ZZZZZ": "%z", "Z": "%z",
}  # fmt: skip
ZONE = re.compile(r"UTC|GMT|[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)+")
TOKEN = re.compile(r"'(?:[^']|'')*'|([A-Za-z])\1*|[^A-Za-z']")


def check_zone(name: str) -> str:
    """Return the name of a time zone if this machine knows it.

    Raises:
        ValueError: the machine or Java does not know the zone.
    """
    try:
        find_zone(name)
        if not ZONE.fullmatch(name) or name.startswith(("posix/", "right/")):  # Java does not know these
            raise ValueError(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone; use a name such as UTC or Europe/Berlin") from None
    return name


def check_format(name: str) -> str:
    """Return a format of times if `TimeRule` can read it.

    Raises:
        ValueError: `TimeRule` can't read the format; the message says why.
    """
    if name not in (AUTO, *EPOCHS):
        to_python(name)
    return name


@functools.cache
def to_python(pattern: str) -> str:
    """Translate a pattern into one for `strptime`; a pattern without % has Java's letters, which Spark uses.

    Raises:
        ValueError: the pattern has an unknown letter or no year, or can't be read for another reason.
    """
    if "%" in pattern:
        python = pattern
    else:
        parts: list[str] = []
        for token in TOKEN.finditer(pattern):
            text = token[0]
            if text.startswith("'"):
                parts.append(text[1:-1].replace("''", "'").replace("%", "%%") or "'")
            elif not text[0].isalpha():
                parts.append(text)
            elif set(text) == {"S"} and len(text) <= 6:
                parts.append("%f")
            elif text in LETTERS:
                parts.append(LETTERS[text])
            else:
                known = f"{AUTO}, {', '.join(EPOCHS)}, or a pattern such as dd.MM.yyyy HH:mm:ss"
                raise ValueError(f"{pattern!r} is not a format of times because of {text!r}; use {known}")
        python = "".join(parts)
    if not any(year in python for year in ("%Y", "%y", "%c", "%x")):
        raise ValueError(f"{pattern!r} is not a format of times: it has no year")
    if "%Z" in python:
        raise ValueError(f"{pattern!r} has a zone by name; use %z for offsets, or ingest.source_timezone")
    if "%I" in python and "%p" not in python:
        raise ValueError(f"{pattern!r} has hours up to 12 and no a.m. or p.m.; use HH (%H)")
    try:  # Python reads what it writes only if it knows all letters
        dt.datetime.strptime(dt.datetime(2024, 3, 1, 12, 30, tzinfo=dt.UTC).strftime(python), python)
    except (ValueError, re.error):
        raise ValueError(f"{pattern!r} is not a format of times that Python's strptime can read") from None
    return python


@functools.cache
def find_zone(name: str) -> ZoneInfo:
    """Return the time zone of a name that `check_zone` accepts."""
    return ZoneInfo(name)


@dataclass(frozen=True)
class TimeRule:
    """How the times of a source are written."""

    format: str = AUTO  # `iso`, one of `EPOCHS`, or a pattern
    zone: str = "UTC"  # the zone of times without an offset

    def read_micros(self, value: object) -> int | None:
        """Read microseconds since 1970 UTC, rounded down; None for a value that is not a time."""
        try:
            if self.format in EPOCHS:
                found = self._read_epoch(value)
            else:
                local = self.read_local(value)
                found = None if local is None else self._to_micros(local)
        except (OverflowError, ValueError, ZoneInfoNotFoundError, OSError):
            return None
        return found if found is not None and FIRST <= found <= LAST else None

    def read_local(self, value: object) -> dt.datetime | None:
        """Read the local time of a value, with its offset if it has one; None if it is not a time."""
        if isinstance(value, dt.datetime):
            return value
        if isinstance(value, dt.date):
            return dt.datetime(value.year, value.month, value.day)
        if isinstance(value, int) and not isinstance(value, bool) and self.format not in (AUTO, *EPOCHS):
            value = str(value)  # such as 20240301 for yyyyMMdd
        if not isinstance(value, str):
            return None
        try:
            if self.format == AUTO or self.format in EPOCHS:
                return read_iso(value)
            return dt.datetime.strptime(value, to_python(self.format))
        except (ValueError, ZoneInfoNotFoundError, OSError):
            return None

    def _to_micros(self, local: dt.datetime) -> int:
        if local.tzinfo is None:
            if self.zone == "UTC":
                return (local - EPOCH) // MICROSECOND
            local = local.replace(tzinfo=find_zone(self.zone))
        return (local.replace(tzinfo=None) - EPOCH - (local.utcoffset() or dt.timedelta())) // MICROSECOND

    def _read_epoch(self, value: object) -> int | None:
        """Read a number in the unit of the format; a time or a date needs no unit."""
        if isinstance(value, dt.date):
            local = self.read_local(value)
            return None if local is None else self._to_micros(local)
        if isinstance(value, bool):
            return None
        if isinstance(value, str):
            if not NUMBER.fullmatch(value):  # Decimal also takes 1_709 and the digits of other scripts
                return None
            value = Decimal(value)
        if not isinstance(value, int | float | Decimal):
            return None
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if not number.is_finite() or number.adjusted() > 20:
            return None
        unit = EPOCHS[self.format]
        micros = number * unit if unit else number / 1000
        return int(micros.to_integral_value(rounding="ROUND_FLOOR"))


def read_iso(text: str) -> dt.datetime | None:
    """Read a date, or a date and a time with an optional offset or zone, in the order of ISO 8601.

    Digits beyond microseconds are cut off.
    """
    found = ISO.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if hour is None and zone and SHORT_OFFSET.fullmatch(zone):
        return None  # 2024-03-05-02 is rather a date with a number than a date at the offset -02
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    local = dt.datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micros
    )
    return local.replace(tzinfo=_read_offset(zone)) if zone else local


@functools.cache
def _read_offset(text: str) -> dt.tzinfo:
    if text in ("Z", "z", "UTC", "GMT"):
        return dt.UTC
    found = OFFSET.fullmatch(text)
    if found is None:
        return find_zone(text.strip("[]"))
    sign = -1 if found[1] == "-" else 1
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
    if hours > 18 or minutes > 59 or seconds > 59:
        raise ValueError(f"{text!r} is not an offset")
    return dt.timezone(sign * dt.timedelta(hours=hours, minutes=minutes, seconds=seconds))
