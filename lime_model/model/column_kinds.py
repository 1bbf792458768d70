"""The five kinds of encoders, each of which turns the values of a column into entries of its table.

`lime_model/model/encoders.py` says what they have in common. Row 0 is null.

Letters: n values, P entries of a value.
"""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lime_model.config import Column
from lime_model.model.entries import Entries, FeatureError, as_number, as_sequence, as_text

KNOTS, LONGEST_LIST = 16, 8  # sizes of a number and of a list whose column gives none


@dataclass(frozen=True)
class Vocabulary:
    """A category: the known values in the order of their rows, from 1 on."""

    values: tuple[str, ...]

    @classmethod
    def fit(cls, column: Column, values: Sequence[Any], at_least: int) -> Self:
        counts = Counter(map(as_text, values))
        return cls(tuple(sorted(value for value, count in counts.items() if count >= at_least)))

    @property
    def rows(self) -> int:
        return len(self.values) + 1

    def encode(self, values: Sequence[Any]) -> Entries:
        return _single(self.row(value) for value in values)

    def row(self, value: Any) -> int:
        """Return the row of a value, 0 when it is null or unknown to training."""
        return 0 if value is None else self._rows.get(as_text(value), 0)

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {value: row for row, value in enumerate(self.values, 1)}


@dataclass(frozen=True)
class Hashed:
    """A hash: the CRC-32 of the value's text chooses a row from 1 to `size`."""

    size: int

    @classmethod
    def fit(cls, column: Column, values: Sequence[Any], at_least: int) -> Self:
        return cls(column.size)

    @property
    def rows(self) -> int:
        return self.size + 1

    def encode(self, values: Sequence[Any]) -> Entries:
        texts = (None if value is None else as_text(value).encode() for value in values)
        return _single(0 if text is None else 1 + zlib.crc32(text) % self.size for text in texts)


@dataclass(frozen=True)
class Knots:
    """A number: quantiles of training, ascending and distinct; a number beyond them counts as the nearest."""

    knots: tuple[float, ...]

    @classmethod
    def fit(cls, column: Column, values: Sequence[Any], at_least: int) -> Self:
        numbers = np.array([as_number(value) for value in values], np.float64)
        numbers = numbers[np.isfinite(numbers)]
        if not len(numbers):
            return cls(())
        quantiles = np.quantile(numbers, np.linspace(0.0, 1.0, column.size or KNOTS))
        return cls(tuple(np.unique(quantiles).tolist()))

    @property
    def rows(self) -> int:
        return len(self.knots) + 1

    def encode(self, values: Sequence[Any]) -> Entries:
        numbers = np.array([as_number(value) for value in values], np.float64)
        slots, weights = np.zeros((len(numbers), 2), np.int64), np.zeros((len(numbers), 2), np.float32)
        weights[:, 0] = 1.0
        known, last = np.isfinite(numbers) & bool(self.knots), len(self.knots) - 1
        if known.any():
            # The place among the knots, as a fraction: its two neighbours share the weight by nearness.
            place = np.interp(numbers[known], self.knots, np.arange(last + 1))
            low = np.clip(place.astype(np.int64), 0, max(last - 1, 0))
            slots[known] = 1 + np.stack([low, np.minimum(low + 1, last)], 1)
            weights[known] = np.stack([1.0 - (place - low), place - low], 1)
        return Entries(slots, weights)


@dataclass(frozen=True)
class Listed:
    """A list: its first `size` values share weight 1; an empty list is null."""

    values: tuple[str, ...]
    size: int

    @classmethod
    def fit(cls, column: Column, values: Sequence[Any], at_least: int) -> Self:
        flat = [part for value in values for part in as_sequence(value)]
        return cls(Vocabulary.fit(column, flat, at_least).values, column.size or LONGEST_LIST)

    @property
    def rows(self) -> int:
        return len(self.values) + 1

    def encode(self, values: Sequence[Any]) -> Entries:
        slots = np.zeros((len(values), self.size), np.int64)
        weights = np.zeros((len(values), self.size), np.float32)
        for row, value in enumerate(values):
            kept = [self._known.row(part) for part in as_sequence(value)[: self.size]] or [0]
            slots[row, : len(kept)] = kept
            weights[row, : len(kept)] = 1.0 / len(kept)
        return Entries(slots, weights)

    @functools.cached_property
    def _known(self) -> Vocabulary:
        return Vocabulary(self.values)


@dataclass(frozen=True)
class Vector:
    """A vector of `size` numbers, divided by `scale`; with a number that is not finite it counts as null."""

    size: int
    scale: float

    @classmethod
    def fit(cls, column: Column, values: Sequence[Any], at_least: int) -> Self:
        lengths = Counter(len(as_sequence(value)) for value in values)
        if lengths and (usual := lengths.most_common(1)[0][0]) != column.size:
            raise FeatureError(f"most vectors have {usual} numbers, the column says size: {column.size}")
        numbers = np.array([as_number(part) for value in values for part in value], np.float64)
        numbers = numbers[np.isfinite(numbers)]
        scale = float(np.sqrt(np.mean(numbers**2))) if len(numbers) else 0.0
        return cls(column.size, scale or 1.0)

    @property
    def rows(self) -> int:
        return self.size + 1

    def encode(self, values: Sequence[Any]) -> Entries:
        slots = np.tile(np.arange(self.rows), (len(values), 1))
        weights = np.zeros((len(values), self.rows), np.float32)
        for row, value in enumerate(values):
            numbers = [as_number(part) for part in as_sequence(value)]
            if numbers and len(numbers) != self.size:
                raise FeatureError(f"a vector has {len(numbers)} numbers, its column says size: {self.size}")
            if numbers and np.isfinite(numbers).all():
                weights[row, 1:] = np.array(numbers) / self.scale
            else:
                weights[row, 0] = 1.0
        return Entries(slots, weights)


def _single(rows: Iterable[int]) -> Entries:
    """Return entries of one row and weight 1 for each value."""
    slots = np.array(list(rows), np.int64)[:, None]
    return Entries(slots, np.ones(slots.shape, np.float32))
