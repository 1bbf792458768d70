"""Columns of a drop: what `read_value` says of every row, with a faster way for the usual Arrow types."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.udfs.times import FIRST, LAST, find_zone
from pipelines.udfs.values import Inexact, Unreadable, ValueRules, WantedColumn, read_value

EXACT_FLOAT32 = 1 << 24  # every whole number up to this has a float32 of its own
DAY = 86_400_000_000  # microseconds
ARROW_TYPES: dict[str, pa.DataType] = {
    "bigint": pa.int64(),
    "string": pa.string(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "array<string>": pa.list_(pa.string()),
    "array<double>": pa.list_(pa.float64()),
}


class Read(NamedTuple):
    """A column after reading: values of the declared type, and by row why one could not be read."""

    values: pa.Array
    problems: dict[int, str]


def read_column(values: pa.Array | Sequence[object], wanted: WantedColumn, rules: ValueRules) -> Read:
    """`read_value` of every row.

    Args:
        values: `[n]`, of an Arrow array or of Python values.

    Returns:
        Arrow values of the declared type, and for every row that could not be read (null there) the reason.
    """
    if isinstance(values, pa.Array):
        if fast := _read_fast(values, wanted, rules):
            return fast
        values = _to_python(values)
    return _read_each(values, wanted, rules)


class OutOfRange:
    """A date or time that Python has no value for."""

    def __repr__(self) -> str:
        return "a date outside the years 1 to 9999"


def _to_python(values: pa.Array) -> list[object]:
    """Python values of an array."""
    try:
        found: list[object] = values.to_pylist()
    except (OverflowError, ValueError):
        return [_item(value) for value in values]
    if pa.types.is_float32(values.type):  # it has fewer whole numbers of its own
        return [Inexact(v) if isinstance(v, float) and abs(v) > EXACT_FLOAT32 else v for v in found]
    return found


def _item(value: pa.Scalar) -> object:
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return OutOfRange()


def _read_each(values: Sequence[object], wanted: WantedColumn, rules: ValueRules) -> Read:
    found: list[Any] = [None] * len(values)
    problems: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            found[row] = read_value(value, wanted, rules)
        except Unreadable as error:
            problems[row] = str(error)
        except (OverflowError, ArithmeticError):
            problems[row] = "wrong_type"
    return Read(pa.array(found, ARROW_TYPES[wanted.type]), problems)


def _read_fast(values: pa.Array, wanted: WantedColumn, rules: ValueRules) -> Read | None:
    """The usual pairs of types, a whole array at a time; None where there is no faster way."""
    kind, target = values.type, ARROW_TYPES[wanted.type]
    if pa.types.is_null(kind):
        return Read(pa.nulls(len(values), target), {})
    if pa.types.is_signed_integer(kind) and wanted.type in ("bigint", "double", "string"):
        return Read(values.cast(target, safe=False), {})  # as Python's float() rounds
    if pa.types.is_floating(kind) and wanted.type == "double":
        if pc.any(pc.is_inf(values)).as_py():
            return None
        return Read(pc.if_else(pc.is_nan(values), None, values).cast(target), {})
    if pa.types.is_string(kind) and wanted.type == "string":
        return _read_texts(values, wanted, rules)
    if pa.types.is_date32(kind) and wanted.type == "date":
        return Read(values, {})
    if pa.types.is_timestamp(kind) and wanted.type == "timestamp":
        return _read_times(values.cast(pa.timestamp("us", tz=kind.tz)), rules)
    return None


def _read_texts(values: pa.Array, wanted: WantedColumn, rules: ValueRules) -> Read:
    trimmed = pc.utf8_trim_whitespace(values)
    empty = pc.is_in(pc.utf8_lower(trimmed), pa.array(sorted(rules.nulls), pa.string()))
    texts = pc.if_else(empty, None, trimmed)
    # What holds a point, a plus sign or a replacement mark may be a float or no text at all: look at each.
    odd = pc.match_substring_regex(texts, r"\.0|[0-9][eE]|\x{FFFD}")
    rows = np.flatnonzero(odd.fill_null(False).to_numpy(zero_copy_only=False))
    if not len(rows):
        return Read(texts, {})
    some = _read_each(texts.take(pa.array(rows)).to_pylist(), wanted, rules)
    mask = np.zeros(len(values), np.bool_)
    mask[rows] = True
    problems = {int(rows[row]): reason for row, reason in some.problems.items()}
    return Read(pc.replace_with_mask(texts, pa.array(mask), some.values), problems)


def _read_times(values: pa.Array, rules: ValueRules) -> Read:
    """Times in microseconds; those outside the years that Python knows can't be read."""
    micros = values.cast(pa.int64())
    known = micros.fill_null(0).to_numpy(zero_copy_only=False)
    wrong = (known < FIRST + DAY) | (known > LAST - DAY)  # a zone may move it by a day
    micros = pc.if_else(pa.array(wrong), None, micros)
    if values.type.tz is None and rules.time.zone != "UTC":
        micros = _localise(micros, rules.time.zone)
    problems = {int(row): "unreadable_timestamp" for row in np.flatnonzero(wrong)}
    return Read(micros.cast(ARROW_TYPES["timestamp"]), problems)


def _localise(micros: pa.Array, zone: str) -> pa.Array:
    """Microseconds of local clocks to microseconds of UTC, as `TimeRule` has it."""
    known = micros.fill_null(0).to_numpy(zero_copy_only=False)
    seconds, which = np.unique(known // 1_000_000, return_inverse=True)
    offsets = np.array([utc_offset(int(each), zone) for each in seconds], np.int64)
    utc = known - offsets[which] * 1_000_000
    return pa.array(utc, pa.int64(), mask=micros.is_null().to_numpy(zero_copy_only=False))


def utc_offset(local_seconds: int, zone: str) -> int:
    """Seconds that a local clock is ahead of UTC."""
    local = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=local_seconds)
    offset = local.replace(tzinfo=find_zone(zone)).utcoffset()
    return int(offset.total_seconds()) if offset else 0


def combine(reads: Sequence[Read], wanted: Sequence[WantedColumn], sources: Sequence[Any]) -> pa.StructArray:
    """The columns of rows as one struct array, with the first reason why a row is bad, and its value.

    Args:
        reads: `[columns]`, each over the same `n` rows.
        sources: `[columns]` of what was read, for the value that is shown.

    Returns:
        `n` structs of the wanted columns, `_reason` (null for a good row) and `_value`.
    """
    count = len(reads[0].values)
    reasons: list[str | None] = [None] * count
    values: list[str | None] = [None] * count
    for read, column, source in reversed(list(zip(reads, wanted, sources, strict=True))):
        for row, reason in read.problems.items():
            reasons[row] = reason if reason == "unreadable_timestamp" else f"{reason}:{column.shown}"
            values[row] = show(source[row])
        if column.required:
            missing = read.values.is_null().to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(missing):
                if row not in read.problems:
                    reasons[row], values[row] = f"null:{column.shown}", show(source[int(row)])
    arrays = [read.values for read in reads]
    names = [column.name for column in wanted]
    return pa.StructArray.from_arrays(
        [*arrays, pa.array(reasons, pa.string()), pa.array(values, pa.string())],
        [*names, "_reason", "_value"],
    )


def show(value: object) -> str | None:
    """A value for people: text as it is, at most 200 characters of it, and always valid UTF-8."""
    if isinstance(value, pa.Scalar):
        value = _item(value)
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    return text[:200].encode("utf-8", "replace").decode()
