"""A night expects the seconds of the last published run, and of the forecast where there is one."""

from __future__ import annotations

from pipelines.night import expect_seconds
from pipelines.score.forecast import forecast_run
from pipelines.steps import NIGHT_STEPS, Job
from pipelines.store.leases import Run
from pipelines.store.manifests import (
    BackendReport,
    ForecastManifest,
    PublishManifest,
    ScoreManifest,
    StatesManifest,
)
from pipelines.store.runs import record
from pipelines.store.tables import Warehouse

FORECAST = ForecastManifest(
    plan_reason="incremental", users=1, in_full=1, candidates=1, changed=0, each=1.0, taken_over=0,
    pairs=1234,
    pairs_avoided=0, bank_bytes=0, state_bytes=0, worker_bytes=0, tasks=1, commits=1, seconds_of_commit=0.0,
    backend=BackendReport(backend="native", device="cpu", why=""), pairs_per_second=1, users_per_second=1,
    taken_over_per_second=1, predicted_seconds=77.5,
)  # fmt: skip


def add(warehouse: Warehouse, run: Run, seconds: float, *, published: bool) -> None:
    """Record the manifests of a night's steps."""
    states = StatesManifest(model="m", model_version="v", versions={}, users=1, events=1, seconds=seconds)
    record(warehouse, run.run_id, run.ds, states)
    scored = ScoreManifest(model="m", model_version="v", versions={}, seconds=2 * seconds)
    record(warehouse, run.run_id, run.ds, scored)
    if published:
        record(warehouse, run.run_id, run.ds, PublishManifest(run_id=run.run_id, seconds=0.5))


def test_a_night_expects_what_the_last_published_run_and_the_forecast_say(empty_shop: Warehouse) -> None:
    now = Run("2024-05-02", "now", 10)
    nothing = "unknown, as no earlier night was timed"
    assert expect_seconds(empty_shop, now, NIGHT_STEPS) == ({}, nothing)
    add(empty_shop, Run("2024-05-01", "a", 3), 1.0, published=True)
    add(empty_shop, Run("2024-05-02", "a", 9), 4.0, published=True)
    add(empty_shop, Run("2024-05-02", "b", 8), 50.0, published=True)  # an earlier epoch of the same night
    add(empty_shop, Run("2024-05-03", "a", 1), 60.0, published=True)  # a later night
    add(empty_shop, now, 70.0, published=True)  # the run itself
    add(empty_shop, Run("2024-05-02", "c", 11), 80.0, published=False)
    last = {Job.BUILD_LINK_STATES: 4.0, Job.SCORE_CANDIDATES: 8.0, Job.PUBLISH_RECOMMENDATIONS: 0.5}
    why = "as many as run 2024-05-02.9 took"
    assert expect_seconds(empty_shop, now, NIGHT_STEPS) == (last, why)
    assert expect_seconds(empty_shop, now, [Job.VERIFY_NIGHT]) == ({}, nothing)
    record(empty_shop, forecast_run(now).run_id, now.ds, FORECAST)
    expected, more = expect_seconds(empty_shop, now, NIGHT_STEPS)
    assert expected == last | {Job.SCORE_CANDIDATES: 77.5}
    assert more == f"{why}; the forecast says incremental, 1,234 pairs"
