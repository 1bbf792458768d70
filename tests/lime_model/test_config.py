"""No number of a model or of its training is accepted out of its range."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lime_model.config import ModelConfig
from lime_model.recipe import LabelTraining, TrainConfig

SECTIONS = {ModelConfig: "model", TrainConfig: "train", LabelTraining: "labels"}
NUMBERS = [
    (owner, field.name)
    for owner in SECTIONS
    for field in dataclasses.fields(owner)
    if field.type in ("int", "float") and field.name != "seed"  # every number is a seed
]


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("owner", "name"), NUMBERS, ids=lambda part: getattr(part, "__name__", part))
def test_a_number_out_of_its_range_is_refused_with_key_value_and_range(
    owner: type, name: str, value: float
) -> None:
    with pytest.raises(ValueError, match=rf"^{SECTIONS[owner]}\.{name} is {value}; (it must be|a cut is)"):
        owner(**{name: value})


@pytest.mark.parametrize("name", ["pool_days", "memory_days"])
@pytest.mark.parametrize("days", [(0.0, 21.0), (90.0, -1.0), (math.nan, 21.0), (math.inf, 21.0)])
def test_days_of_decay_are_finite_and_above_0(name: str, days: tuple[float, float]) -> None:
    with pytest.raises(
        ValueError, match=rf"^model\.{name} is .*; each number of days must be finite and above 0"
    ):
        ModelConfig(**{name: days})


def test_numbers_are_found() -> None:
    assert len(NUMBERS) > 30
