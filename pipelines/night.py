"""The steps of a night by name; each is a function of a warehouse and a run.

Steps that share a Spark application save the start of a session, which takes many seconds on a small machine.
If each step runs in an application of its own, each can have its own resources. The result is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pipelines.build.candidate_bank import build_candidate_bank
from pipelines.build.link_states import build_link_states
from pipelines.export.export_lists import export_recommendations
from pipelines.ingest.load_days import ingest_night
from pipelines.models.pinned_inputs import pin_inputs
from pipelines.publish.audits import audit_recommendations
from pipelines.publish.publish import publish_recommendations
from pipelines.publish.verify_night import verify_night
from pipelines.score.forecast import find_forecast
from pipelines.score.stage import score_candidates
from pipelines.steps import Job
from pipelines.store.leases import Run
from pipelines.store.manifests import (
    BankManifest,
    ExportManifest,
    IngestManifest,
    Manifest,
    ScoreManifest,
    StatesManifest,
)
from pipelines.store.runs import run_once, seconds_of_last
from pipelines.store.tables import Warehouse

# The step whose seconds are forecast before a night runs, if it is planned.
FORECAST = Job.SCORE_CANDIDATES

Step = Callable[[Warehouse, Run], Manifest]


def _ingest(warehouse: Warehouse, run: Run) -> IngestManifest:
    def work() -> IngestManifest:
        loaded = ingest_night(warehouse, run.ds)
        return pin_inputs(warehouse, run, warehouse.settings.night.model, loaded)

    return run_once(warehouse, run, IngestManifest, work)


def _build_bank(warehouse: Warehouse, run: Run) -> BankManifest:
    night = warehouse.settings.night
    return build_candidate_bank(warehouse, run, night.model, [night.policy])


def _build_states(warehouse: Warehouse, run: Run) -> StatesManifest:
    return build_link_states(warehouse, run, warehouse.settings.night.model)


def _score(warehouse: Warehouse, run: Run) -> ScoreManifest:
    return score_candidates(warehouse, run, [warehouse.settings.night.policy])


def _export(warehouse: Warehouse, run: Run) -> ExportManifest:
    return export_recommendations(warehouse, run.ds, newer="keep")


STEPS: Final[dict[Job, Step]] = {
    Job.INGEST_EVENTS: _ingest,
    Job.BUILD_CANDIDATE_BANK: _build_bank,
    Job.BUILD_LINK_STATES: _build_states,
    Job.SCORE_CANDIDATES: _score,
    Job.VERIFY_NIGHT: verify_night,
    Job.AUDIT_RECOMMENDATIONS: audit_recommendations,
    Job.PUBLISH_RECOMMENDATIONS: publish_recommendations,
    Job.EXPORT_RECOMMENDATIONS: _export,
}


def expect_seconds(warehouse: Warehouse, run: Run, steps: Sequence[Job]) -> tuple[dict[str, float], str]:
    """Return how long the steps of a run will take, as far as an earlier night or a forecast says so.

    Args:
        warehouse: holds the manifests.
        run: the run that is about to begin.
        steps: its steps.

    Returns:
        The seconds by step, and where they come from, as a sentence.
    """
    like, seconds = seconds_of_last(warehouse, run)
    expected = {str(step): seconds[step] for step in steps if step in seconds}
    why = [f"as many as run {like} took"] if expected else []
    forecast = find_forecast(warehouse, run)
    if forecast and FORECAST in steps:
        expected[FORECAST] = forecast.predicted_seconds
        why.append(f"the forecast says {forecast.plan_reason}, {forecast.pairs:,} pairs")
    return expected, "; ".join(why) or "unknown, as no earlier night was timed"
