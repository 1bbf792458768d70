"""Encoders: five kinds of columns to entries of an embedding table.

Whatever a column holds, a value becomes a few *entries*: rows of the column's table, each with a weight. The
value's embedding is their weighted sum, so one sparse product reads every kind:

| kind | entries of a value |
|---|---|
| category | the row of its value, weight 1 |
| hash | the row that its CRC-32 falls on, weight 1: no vocabulary, for ids by the million |
| number | the two nearest knots, weighted by nearness; knots are quantiles of training |
| list | the rows of its values, which share weight 1 |
| vector | every dimension, weighted by its number divided by training's root mean square |

Row 0 is null, and also a category that training did not know. Piecewise-linear numbers follow Gorishniy et
al. 2022, arXiv:2203.05556. Everything is fixed at training time and stored in the bundle.

Letters: n values, P entries of a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol, Self

from lime_model.config import Column, Kind
from lime_model.model.column_kinds import Hashed, Knots, Listed, Vector, Vocabulary
from lime_model.model.entries import Entries, FeatureError


class Encoder(Protocol):
    """A column as training knew it; its fields are plain JSON types."""

    @classmethod
    def fit(cls, column: Column, values: Sequence[Any], at_least: int) -> Self:
        """Fit an encoder to the values of training.

        Args:
            column: name, kind and size.
            values: the values of training without nulls.
            at_least: how often a category must occur to get a row.

        Raises:
            FeatureError: a value is not what the kind reads.
        """

    @property
    def rows(self) -> int:
        """Rows of the column's embedding table, row 0 included."""

    def encode(self, values: Sequence[Any]) -> Entries:
        """Encode some values; null is row 0.

        Raises:
            FeatureError: a value is not what the kind reads.
        """


ENCODERS: dict[Kind, type[Encoder]] = {
    "category": Vocabulary,
    "hash": Hashed,
    "number": Knots,
    "list": Listed,
    "vector": Vector,
}


def fit_encoder(column: Column, values: Sequence[Any], *, at_least: int = 1) -> Encoder:
    """Fit the encoder of a column; without values, every value is null.

    Args:
        column: name, kind and size.
        values: the values of training, nulls included.
        at_least: how often a category must occur to get a row.

    Raises:
        FeatureError: a value is not what the kind reads, naming the column.
    """
    try:
        return ENCODERS[column.kind].fit(column, [v for v in values if v is not None], at_least)
    except FeatureError as error:
        raise FeatureError(f"column {column.name}: {error}") from error


def encoder_to_json(encoder: Encoder) -> dict[str, Any]:
    """Return the encoder's fields as plain JSON types; with the column's kind they are the whole encoder."""
    return asdict(encoder)  # type: ignore[call-overload]  # every encoder is a dataclass


def encoder_from_json(column: Column, raw: dict[str, Any]) -> Encoder:
    """Return the encoder that `encoder_to_json` wrote for a column."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    return ENCODERS[column.kind](**fields)
