"""Test the offline metrics of models and baselines under every policy, and that another K is another run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.learn.evaluate import evaluate_models
from pipelines.store.apart import set_apart
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.conftest import copy_log
from tests.nights import with_night

pytestmark = pytest.mark.operate


def evaluated(warehouse: Warehouse) -> dict[tuple[str, str], float]:
    """Return the recall by model and policy."""
    manifest = evaluate_models(warehouse, shop.NIGHT, "test", ["mha"], horizon_days=9, min_events=5)
    for row in manifest.rows:
        low, high = row["recall_95"]
        assert 0 <= low <= row["recall"] <= high <= 1
        assert row["recall"] <= row["hit_rate"] <= 1
        assert 0 < row["coverage"] <= 1
        assert row["novelty_bits"] >= 0
    return {(row["model"], row["policy"]): row["recall"] for row in manifest.rows}


def test_models_and_baselines_are_measured_and_another_k_scores_again(
    trained: Warehouse, tmp_path: Path
) -> None:
    warehouse = copy_log(trained, tmp_path)
    recall = evaluated(warehouse)
    both = {(model, policy) for model in ("mha", "popularity") for policy in ("all", "new")}
    assert set(recall) == both | {("personal frequency", "all")}
    assert recall["mha", "all"] > recall["popularity", "all"]  # users of the shop have preferences
    apart = set_apart(warehouse, f"{shop.NIGHT}.evaluate-test")
    staged = apart.version("staging")
    assert evaluated(warehouse) == recall
    assert apart.version("staging") == staged  # existing lists are not scored again
    shorter = evaluated(with_night(warehouse, k=3))
    assert apart.version("staging") > staged
    assert shorter["mha", "all"] < recall["mha", "all"]
