"""Test that a challenger becomes champion only if it is better on days that neither was trained on."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.learn.challenge import challenge, judge
from pipelines.models.champions import decisions, find_champion
from pipelines.settings.night import PromotionSettings
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import copy_shop, open_shop

pytestmark = pytest.mark.operate


def with_training(trained: Warehouse, root: Path, margin: float = 0.0, **train: Any) -> Warehouse:
    """Return a copy of the shop with other training settings, which compares models on nine days."""
    own = open_shop(trained.spark, root) if (root / "bundles").exists() else copy_shop(trained, root)
    model = trained.settings.model("mha")
    changed = model.model_copy(update={"train": dataclasses.replace(model.train, **train)})
    promotion = PromotionSettings(horizon_days=9, min_events=5, margin=margin)
    update = {"models": [changed], "promotion": promotion}
    return Warehouse(own.spark, own.settings.model_copy(update=update))


def test_only_a_better_challenger_is_promoted(trained: Warehouse, tmp_path: Path) -> None:
    same = challenge(with_training(trained, tmp_path), shop.LAST, "mha")
    assert not same.promoted
    assert "it is the champion" in same.why  # both were trained on the same log up to the same day

    worse = with_training(trained, tmp_path, steps=1, link_steps=1)
    found = challenge(worse, shop.LAST, "mha")
    assert not found.promoted
    assert "recall" in found.why
    assert find_champion(worse, "mha", shop.LAST) == same.champion
    assert {row["model"] for row in found.rows} >= {"challenger", "champion", "popularity"}

    better = with_training(trained, tmp_path / "none", steps=60)
    shutil.rmtree(tmp_path / "none" / "bundles")  # now there are only baselines to compare with
    second = challenge(better, shop.LAST, "mha")
    assert second.promoted
    assert find_champion(better, "mha", shop.LAST) == second.challenger
    assert find_champion(better, "mha", "2024-05-09") is None  # earlier nights do not change
    assert '"recall"' in decisions(better, "mha")[-1].evidence


def test_a_champion_is_not_measured_on_days_that_it_was_trained_on(
    trained: Warehouse, tmp_path: Path
) -> None:
    """The cut-off of the champion is 1 May, and the nine days before 7 May begin on 28 April."""
    warehouse = with_training(trained, tmp_path, steps=12)
    found = challenge(warehouse, "2024-05-07", "mha")
    assert not found.promoted
    assert "trained on events before 2024-05-01 and has seen days that would judge" in found.why


@pytest.mark.parametrize(
    ("champion", "popularity", "margin", "promoted", "why"),
    [
        (None, 0.1, 0.0, True, "there was no champion"),
        (0.25, 0.1, 0.0, True, "above the champion's 0.2500"),
        (0.25, 0.1, 0.1, False, "not above the champion's 0.2500 by the margin of 0.1"),
        (0.35, 0.1, 0.0, False, "not above the champion's 0.3500 by the margin of 0"),
        (0.3, 0.1, 0.0, False, "not above the champion's 0.3000"),  # a tie is not better
        (float("nan"), 0.1, 0.0, False, "recall can't be computed on these days"),
        (0.2, 0.4, 0.0, False, "below that of popularity, 0.4000"),
    ],
)
def test_a_challenger_is_judged_by_margin_against_the_champion_and_the_baselines(
    champion: float | None, popularity: float, margin: float, promoted: bool, why: str
) -> None:
    values = {"challenger": 0.3, "champion": champion, "popularity": popularity}
    rows = [{"model": name, "policy": "all", "recall": v} for name, v in values.items() if v is not None]
    rows.append({"model": "popularity", "policy": "new", "recall": 0.9})  # only the first policy counts
    found, said = judge(rows, margin)
    assert found is promoted
    assert why in said
