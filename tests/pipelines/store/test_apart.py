"""Test that work that publishes nothing changes nothing that a night reads."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import plan_night as plan_job
from pipelines.learn.evaluate import evaluate_models
from pipelines.night import STEPS
from pipelines.operate.upkeep import tidy_tables
from pipelines.publish.full_comparison import verify_full
from pipelines.schemas import TABLES
from pipelines.settings.night import UpkeepSettings
from pipelines.store import apart
from pipelines.store.leases import acquire_lease, check_lease
from pipelines.store.manifests import Manifest, ScoreManifest, StatesManifest
from pipelines.store.tables import Warehouse
from tests.conftest import copy_log, open_shop

pytestmark = pytest.mark.operate
FIRST, SECOND = "2024-05-06", "2024-05-07"
BUILD = ("build_candidate_bank", "build_link_states", "score_candidates", "verify_night")
BOOKS = {"runs"}  # an evaluation adds one row of results to this table


def night(warehouse: Warehouse, ds: str) -> dict[str, Manifest]:
    run = acquire_lease(warehouse, ds, "night")
    return {name: STEPS[name](warehouse, run) for name in BUILD}


def versions(warehouse: Warehouse) -> dict[str, int]:
    """Return the version of every table that a night reads or writes."""
    return {name: warehouse.newest(name) for name in (*TABLES, "items", "users") if name not in BOOKS}


def evaluate(warehouse: Warehouse, ds: str = FIRST) -> list[dict[str, object]]:
    return evaluate_models(warehouse, ds, "a key/of ours", ["mha"], horizon_days=9, min_events=5).rows


def forecast_run(night: dict[str, Manifest]) -> dict[str, Any]:
    """Return what a night started from, and what it did because of that."""
    states, scored = night["build_link_states"], night["score_candidates"]
    assert isinstance(states, StatesManifest)
    assert isinstance(scored, ScoreManifest)
    of_states: dict[str, Any] = states.model_dump(
        include={"plan_reason", "base", "recomputed", "merged", "kept"}
    )
    return {
        **of_states,
        "scored": scored.policies["all"].model_dump(include={"plan_reason", "pairs", "pairs_avoided"}),
    }


def test_work_between_two_nights_that_publishes_nothing_changes_neither(
    trained: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is evaluations of the same night and of an earlier one, a full comparison, and a forecast."""
    warehouse = copy_log(trained, tmp_path / "one")
    night(warehouse, FIRST)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    undisturbed = forecast_run(night(open_shop(trained.spark, tmp_path / "two"), SECOND))

    before = versions(warehouse)
    measured = evaluate(warehouse)
    assert measured == evaluate(copy_log(trained, tmp_path / "alone"))  # whatever the tables of nights hold
    evaluate(warehouse, "2024-05-03")
    assert versions(warehouse) == before
    assert forecast_run(night(warehouse, SECOND)) == undisturbed
    assert undisturbed["scored"]["pairs_avoided"]

    staged = apart.set_apart(warehouse, f"{FIRST}.evaluate-a key/of ours")
    newest = staged.newest("staging")
    assert newest >= 0
    assert evaluate(warehouse) == measured
    assert staged.newest("staging") == newest  # a repeated key reuses its lists

    run = acquire_lease(warehouse, SECOND, "night")
    before = versions(warehouse)
    assert verify_full(warehouse, run).passed
    monkeypatch.setattr(plan_job, "with_warehouse", lambda config, work, **about: work(warehouse) or 0)
    monkeypatch.setattr("sys.argv", ["plan_night", "--config", "x", "--ds", SECOND, "--run-key", "another"])
    assert plan_job.main() == 0
    assert versions(warehouse) == before
    assert check_lease(warehouse, run) == run  # nobody took the night


def test_upkeep_drops_old_folders_of_separate_tables(empty_shop: Warehouse) -> None:
    limits = {"upkeep": UpkeepSettings(keep_nights=2, keep_days=3)}
    warehouse = Warehouse(empty_shop.spark, empty_shop.settings.model_copy(update=limits))
    root = Path(warehouse.path(apart.FOLDER))
    ages = {"2024-05-01.evaluate-old": 4, "2024-05-01.evaluate-lately": 2, "2024-05-05.evaluate-new": 4}
    for name, days in ages.items():
        file = root / name / "runs" / "_delta_log" / "0.json"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (time.time() - days * 86400,) * 2)
    assert tidy_tables(warehouse, "2024-05-06").evaluations_dropped == ["2024-05-01.evaluate-old"]
    assert sorted(os.listdir(root)) == ["2024-05-01.evaluate-lately", "2024-05-05.evaluate-new"]
    assert apart.drop_all(warehouse) == 2
    assert not root.exists()
    assert apart.drop_all(warehouse) == 0
