"""The forecast of a night: its counts, what it refuses, and its comparison with the scored night."""

from __future__ import annotations

import logging
import re

import pytest

from pipelines.build.candidate_bank import build_candidate_bank
from pipelines.build.link_states import build_link_states
from pipelines.score import forecast
from pipelines.score.forecast import (
    COMMIT_SECONDS,
    MOST_SECONDS,
    WORKER_BYTES,
    ImpossibleNight,
    check_room,
    find_forecast,
    plan_night,
    predict_seconds,
    seconds_of_commit,
)
from pipelines.score.stage import score_candidates
from pipelines.score.workload import PastNight, estimate_workload
from pipelines.store.leases import Run
from pipelines.store.manifests import PolicyReport, ScoreManifest
from pipelines.store.runs import record
from pipelines.store.tables import Warehouse
from synthetic import shop
from tests.nights import with_night

HOST = {"host": "here", "executor": 1, "free_bytes": 1 << 30, "memory_bytes": 4 << 30}


def test_a_forecast_counts_the_same_before_and_after_the_build(trained: Warehouse) -> None:
    policy = trained.settings.night.policy
    before = plan_night(trained, Run(shop.NIGHT, "plan-first"))
    run = Run(shop.NIGHT, "plan-last")
    build_candidate_bank(trained, run, trained.settings.night.model, [policy])
    build_link_states(trained, run, trained.settings.night.model)
    after = plan_night(trained, run, price=0.05)
    for name in ("users", "candidates", "pairs", "bank_bytes", "state_bytes", "tasks", "commits"):
        assert getattr(before, name) == getattr(after, name), name
    assert after.pairs == shop.USERS * (shop.ITEMS + 1)
    assert after.predicted_seconds > 0
    assert after.predicted_cost == pytest.approx(
        after.predicted_seconds / 3600 * after.tasks * 0.05, rel=0.02
    )
    scored = score_candidates(trained, run, [policy])
    assert scored.forecast is not None
    assert scored.forecast.cost_per_million_pairs is not None
    assert scored.forecast.predicted_seconds == after.predicted_seconds
    assert scored.forecast.share_of_night == 1
    assert scored.forecast.actual_seconds == scored.policies[policy.name].seconds
    assert scored.forecast.cost_per_million_pairs > 0


def test_an_incremental_forecast_adds_users_in_full_and_lists_taken_over() -> None:
    """A tenth of the users is active, and a tenth of the others has no room left in their lists."""
    work = estimate_workload(1000, 100, 5000, 50, PastNight(renewed=0.1, moved=30.0))
    assert (work.in_full, work.taken_over) == (190, 810)
    assert work.pairs == 190 * 5000 + 810 * 80
    said = f"about {work.pairs:,} pairs, {5_000_000 - work.pairs:,} avoided"
    assert work.describe().startswith("about 190 of 1,000 users changed")
    assert work.describe().endswith(said)
    host = {"pairs_per_second": 1e6, "users_per_second": 500.0, "taken_over_per_second": 100.0}
    alone = predict_seconds(work, [host])
    assert alone == pytest.approx(1000 / 500 + 190 * 5000 / 1e6 + 810 / 100)
    assert predict_seconds(work, [host, host]) == pytest.approx(alone / 2)
    many = estimate_workload(1000, 100, 5000, 1250, PastNight())
    assert (many.in_full, many.pairs) == (1000, 5_000_000)
    assert many.describe().startswith(
        "1,250 of 5,000 candidates changed, so all 1,000 users meet all of them"
    )


def test_a_commit_is_forecast_to_take_as_long_as_on_the_night_before(empty_shop: Warehouse) -> None:
    """The night took 20 s, of which the cores needed 12 s for the pairs, so 2 commits took the other 8 s."""
    hosts = [{"pairs_per_second": 1e5, "users_per_second": 500.0, "taken_over_per_second": 100.0}]
    report_fields = {
        "users": 1000, "pairs": 1_000_000, "users_taken_over": 0, "pairs_taken_over": 0,
        "commits": 2, "commits_reused": 0, "seconds": 20.0,
    }  # fmt: skip

    def record_night(ds: str, key: str, **more: object) -> None:
        report = PolicyReport.model_validate(report_fields | more)
        manifest = ScoreManifest(model="mha", model_version="v", policies={"all": report}, versions={})
        record(empty_shop, f"{ds}.{key}", ds, manifest)

    def forecast_commit(ds: str, *, incremental: bool) -> float:
        return seconds_of_commit(empty_shop, Run(ds, "next"), hosts, incremental=incremental)

    record_night("2024-05-01", "1")
    assert forecast_commit("2024-05-01", incremental=False) == COMMIT_SECONDS  # its own night does not count
    assert forecast_commit("2024-05-02", incremental=False) == pytest.approx(4.0)
    record_night("2024-05-02", "1", seconds=100.0)
    record_night("2024-05-03", "evaluate-it", seconds=1000.0)
    record_night("2024-05-03", "1", seconds=1000.0, commits_reused=1)
    assert forecast_commit("2024-05-04", incremental=False) == pytest.approx(44.0)
    assert forecast_commit("2024-05-04", incremental=True) == MOST_SECONDS
    record_night("2024-05-03", "2", users_taken_over=900, pairs_taken_over=900_000)
    assert forecast_commit("2024-05-04", incremental=True) == pytest.approx((20 - 2 - 1 - 9) / 2)


def test_an_impossible_night_is_refused_with_the_numbers() -> None:
    wanted = r"1 executors on here take 4,294,967,296 bytes .* of 2,147,483,648, and 1,073,741,824 are free"
    with pytest.raises(ImpossibleNight, match=wanted):
        check_room([HOST], 2 << 30)
    check_room([HOST], 1 << 29)
    with pytest.raises(ImpossibleNight, match="2 executors on here"):
        check_room([HOST, {**HOST, "executor": 2}], 1 << 29)
    many = [HOST] * 8
    with pytest.raises(ImpossibleNight, match=rf"8 workers on here take up to {8 * WORKER_BYTES:,} bytes"):
        check_room(many, 1 << 20)


def test_a_refused_forecast_is_not_recorded(trained: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "WORKER_BYTES", 1 << 50)  # no host has that
    run = Run(shop.NIGHT, "plan-impossible")
    with pytest.raises(ImpossibleNight, match=r"workers on .* take up to [\d,]+ bytes"):
        plan_night(trained, run)
    assert find_forecast(trained, run) is None


def test_progress_says_what_is_done_and_what_is_left(
    trained: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(shop.NIGHT, "progress")
    policy = trained.settings.night.policy
    build_candidate_bank(trained, run, trained.settings.night.model, [policy])
    build_link_states(trained, run, trained.settings.night.model)
    with caplog.at_level(logging.INFO, "pipelines.store.progress"):
        score_candidates(with_night(trained, units_per_commit=2), run, [policy])
    pairs = shop.USERS * (shop.ITEMS + 1)
    assert f"0 of 2 commits, about 0 of {pairs:,} pairs" in caplog.text
    assert re.search(
        rf"1 of 2 commits, about {pairs // 2:,} of {pairs:,} pairs, .* M pairs/s, \d+ s left", caplog.text
    )
    assert f"2 of 2 commits, about {pairs:,} of" in caplog.text
