"""Read whole columns of drops by the rules of `values.read_value`, faster for the usual Arrow types."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.udfs.times import FIRST, LAST, find_zone
from pipelines.udfs.values import ValueRules, WantedColumn, read_value
from pipelines.udfs.whole_numbers import Inexact, Unreadable

EXACT_FLOAT32 = 1 << 24  # every whole number up to this has a float32 of its own
DAY = 86_400_000_000  # microseconds of a day
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
    """A column after reading."""

    values: pa.Array  # of the declared type; null where a value could not be read
    problems: dict[int, str]  # row -> the reason why its value could not be read


def read_column(values: pa.Array | Sequence[object], wanted: WantedColumn, rules: ValueRules) -> Read:
    """Read every value of a column by the rules of `read_value`.

    Args:
        values: `[n]`, an Arrow array or Python values.
        wanted: the column.
        rules: how values are written.

    Returns:
        `[n]` Arrow values of the declared type, and the reasons of those that could not be read.
    """
    if isinstance(values, pa.Array):
        if fast := _read_fast(values, wanted, rules):
            return fast
        values = _to_python(values)
    return _read_each(values, wanted, rules)


class OutOfRange:
    """A date or time that Python can't represent."""

    def __repr__(self) -> str:
        return "a date outside the years 1 to 9999"


def _to_python(values: pa.Array) -> list[object]:
    """Turn an array into Python values."""
    try:
        found: list[object] = values.to_pylist()
    except (OverflowError, ValueError):
        return [_item(value) for value in values]
    if pa.types.is_float32(values.type):  # float32 distinguishes fewer whole numbers than float64
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
    """Read the usual pairs of types a whole array at a time; return None where there is no faster way."""
    kind, target = values.type, ARROW_TYPES[wanted.type]
    if pa.types.is_null(kind):
        return Read(pa.nulls(len(values), target), {})
    if pa.types.is_signed_integer(kind) and wanted.type in ("bigint", "double", "string"):
        return Read(values.cast(target, safe=False), {})  # rounds like Python's float()
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
    # Text with a point, an exponent or a replacement mark may be a float or no text at all: read each alone.
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
    """Read times in microseconds; a time outside the years that Python knows is unreadable."""
    micros = values.cast(pa.int64())
    known = micros.fill_null(0).to_numpy(zero_copy_only=False)
    wrong = (known < FIRST + DAY) | (known > LAST - DAY)  # a zone may move a time by a day
    micros = pc.if_else(pa.array(wrong), None, micros)
    if values.type.tz is None and rules.time.zone != "UTC":
        micros = _localise(micros, rules.time.zone)
    problems = {int(row): "unreadable_timestamp" for row in np.flatnonzero(wrong)}
    return Read(micros.cast(ARROW_TYPES["timestamp"]), problems)


def _localise(micros: pa.Array, zone: str) -> pa.Array:
    """Turn microseconds of local times into microseconds of UTC, by the rules of `times.py`."""
    known = micros.fill_null(0).to_numpy(zero_copy_only=False)
    seconds, which = np.unique(known // 1_000_000, return_inverse=True)
    offsets = np.array([utc_offset(int(each), zone) for each in seconds], np.int64)
    utc = known - offsets[which] * 1_000_000
    return pa.array(utc, pa.int64(), mask=micros.is_null().to_numpy(zero_copy_only=False))


def utc_offset(local_seconds: int, zone: str) -> int:
    """Return by how many seconds a zone is ahead of UTC at a local time, in seconds since 1970."""
    local = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=local_seconds)
    offset = local.replace(tzinfo=find_zone(zone)).utcoffset()
    return int(offset.total_seconds()) if offset else 0


def combine(reads: Sequence[Read], wanted: Sequence[WantedColumn], sources: Sequence[Any]) -> pa.StructArray:
    """Combine columns into one struct array, with the first reason why a row is bad and the wrong value.

    Args:
        reads: `[columns]` read columns, each of the same `n` rows.
        wanted: `[columns]` the columns themselves.
        sources: `[columns]` the values before reading, to show the wrong ones.

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
    """Show a value in a message: at most 200 characters of its text, always valid UTF-8."""
    if isinstance(value, pa.Scalar):
        value = _item(value)
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    return text[:200].encode("utf-8", "replace").decode()
