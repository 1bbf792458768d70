"""Entries of an embedding table, and how the values of columns are read before they become entries.

Letters: n values, P entries of a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lime_model.arrays import F32, Ints
from lime_model.errors import LimeError


class FeatureError(LimeError):
    """A value that its column's kind can't read."""


class Entries(NamedTuple):
    """Table rows `slots [n, P]` and their `weights [n, P]`; an entry of weight 0 adds nothing."""

    slots: Ints
    weights: F32


def as_text(value: Any) -> str:
    """Return one text for one value: Arrow, JSON and Spark write some values differently."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return str(value)


def as_number(value: Any) -> float:
    """Return a number, NaN for null.

    Raises:
        FeatureError: the value is no number.
    """
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise FeatureError(f"{value!r} is no number; declare the column's type in ingest") from None


def as_sequence(value: Any) -> Sequence[Any]:
    """Return a list of values, empty for null.

    Raises:
        FeatureError: the value is no list.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise FeatureError(f"{value!r} is no list; declare the column as an array in ingest")
    return value
