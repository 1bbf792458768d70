"""Encoders: every kind is checked by hand, with nulls and unknown values, and each comes back from JSON."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from lime_model.config import Column, Kind
from lime_model.model.column_kinds import Knots
from lime_model.model.encoders import Encoder, encoder_from_json, encoder_to_json, fit_encoder
from lime_model.model.entries import Entries, FeatureError, as_text
from lime_model.model.features import encode_columns, encode_rows, table_rows
from lime_model.model.lime import Features, FeatureSum
from lime_model.scoring.canonical import sum_entries

VALUES: dict[Kind, list[Any]] = {
    "category": ["b", "a", None, "b"],
    "hash": ["x", 7, None],
    "number": [4.0, None, 1.0, 2.0, 3.0, 0.0],
    "list": [["a", "b"], [], None, ["b"]],
    "vector": [[3.0, -4.0], None, [0.0, 5.0]],
}
SIZES: dict[Kind, int] = {"hash": 5, "number": 3, "list": 2, "vector": 2}


def fitted(kind: Kind) -> Encoder:
    return fit_encoder(Column("c", kind, SIZES.get(kind, 0)), VALUES[kind])


def means(encoder: Encoder, value: Any) -> dict[int, float]:
    """Return the table rows of one value, and the weight of each."""
    slots, weights = encoder.encode([value])
    found: dict[int, float] = {}
    for slot, weight in zip(slots[0].tolist(), weights[0].tolist(), strict=True):
        if weight:
            found[slot] = found.get(slot, 0.0) + weight
    return found


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("category", "a", {1: 1.0}),
        ("category", "b", {2: 1.0}),
        ("category", "never seen", {0: 1.0}),
        ("hash", "x", {1 + zlib.crc32(b"x") % 5: 1.0}),
        ("hash", "never seen", {1 + zlib.crc32(b"never seen") % 5: 1.0}),
        ("number", 0.0, {1: 1.0}),  # knots are 0, 2, 4
        ("number", 1.0, {1: 0.5, 2: 0.5}),
        ("number", 3.5, {2: 0.25, 3: 0.75}),
        ("number", "4", {3: 1.0}),
        ("number", 99, {3: 1.0}),
        ("number", -math.inf, {0: 1.0}),
        ("list", ["b", "a"], {1: 0.5, 2: 0.5}),
        ("list", ["b", "never seen"], {0: 0.5, 2: 0.5}),
        ("list", ["b", "b", "a"], {2: 1.0}),  # size 2
        ("list", [], {0: 1.0}),
        ("vector", [math.sqrt(12.5), 0.0], {1: 1.0}),  # the mean square of 3, 4, 0 and 5 is 12.5
        ("vector", [math.nan, 1.0], {0: 1.0}),
    ],
)
def test_a_value_becomes_these_rows(kind: Kind, value: Any, expected: dict[int, float]) -> None:
    assert means(fitted(kind), value) == pytest.approx(expected)


@pytest.mark.parametrize("kind", VALUES)
def test_null_is_row_zero_and_json_restores_every_encoder(kind: Kind) -> None:
    column = Column("c", kind, SIZES.get(kind, 0))
    for encoder in (fitted(kind), fit_encoder(column, [])):
        assert means(encoder, None) == {0: 1.0}
        assert encoder_from_json(column, encoder_to_json(encoder)) == encoder
        assert encoder.encode(VALUES[kind]).slots.max() < encoder.rows


def test_rare_categories_have_no_row() -> None:
    assert fit_encoder(Column("c"), ["a", "a", "b"], at_least=2).rows == 2


def test_a_number_of_one_value_has_one_knot() -> None:
    knots = fit_encoder(Column("c", "number"), [5.0, 5.0])
    assert isinstance(knots, Knots)
    assert knots.knots == (5.0,)
    assert [means(knots, value) for value in (4, 5, 6)] == [{1: 1.0}] * 3


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("number", "tall", "column c: 'tall' is no number"),
        ("list", "a", "column c: 'a' is no list"),
        ("vector", [1.0], "column c: a vector has 1 numbers, its column says size: 2"),
    ],
)
def test_what_a_kind_cannot_read_is_named(kind: Kind, value: Any, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        encode_columns({"c": [value]}, {"c": fitted(kind)}, 1)


def test_a_size_that_is_not_the_vectors_is_refused_in_training() -> None:
    with pytest.raises(FeatureError, match=r"^column c: most vectors have 3 numbers, .* size: 2"):
        fit_encoder(Column("c", "vector", 2), [[1.0, 2.0, 3.0]] * 2 + [[1.0, 2.0]])


def test_what_cannot_be_read_is_null_in_its_column_alone() -> None:
    encoders = {"a": fitted("category"), "v": fitted("vector")}
    columns = {"a": ["a", "b", "a"], "v": [[3.0, 4.0], [1.0], None]}
    entries, faults = encode_rows(columns, encoders, 3)
    assert faults == {1: "column v: a vector has 1 numbers, its column says size: 2"}
    sound = encode_columns(columns | {"v": [[3.0, 4.0], None, None]}, encoders, 3)
    assert entries.slots.tolist() == sound.slots.tolist()
    assert entries.weights.tolist() == sound.weights.tolist()


def test_equal_values_have_one_text() -> None:
    assert [as_text(v) for v in (True, np.bool_(False), 3, 3.0, 2.5, "x", math.nan, -math.inf)] == [
        "true", "false", "3", "3", "2.5", "x", "NaN", "-Infinity",
    ]  # fmt: skip


def test_columns_share_a_table_and_every_sum_agrees() -> None:
    """Blocks are in the order of the settings; the module, the canonical sum and a plain loop agree."""
    encoders = {kind: fitted(kind) for kind in VALUES}
    columns = {kind: [values[0], None] for kind, values in VALUES.items() if kind != "hash"}
    entries: Entries = encode_columns(columns, encoders, 2)
    torch.manual_seed(0)
    summed = FeatureSum(table_rows(encoders), 4).double()
    table, expected = summed.table.weight.detach().numpy(), np.zeros((2, 4))
    for row in range(2):
        first = 0
        for kind, encoder in encoders.items():
            for slot, weight in means(encoder, columns.get(kind, [None, None])[row]).items():
                expected[row] += weight * table[first + slot]
            first += encoder.rows
    np.testing.assert_allclose(summed(Features.of(entries)).detach().numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(sum_entries(table, entries), expected, rtol=1e-6)


def test_without_columns_the_sum_is_zero() -> None:
    nothing = encode_columns({}, {}, 3)
    assert not FeatureSum(0, 4)(Features.of(nothing)).any()
    assert not sum_entries(np.zeros((0, 4)), nothing).any()
