"""Report one night: whether its lists are in force and why, and what its run did, proved and took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pipelines.publish.night_state import NightState, derive_state, describe_remedy
from pipelines.report.record import Record
from pipelines.settings.night import SoftCheck
from pipelines.steps import NIGHT_STEPS, Job
from pipelines.store.manifests import (
    AuditManifest,
    BackendReport,
    BankManifest,
    CertificateManifest,
    CheckReport,
    EvaluationManifest,
    ExportManifest,
    FailedAuditManifest,
    ForecastComparison,
    ForecastManifest,
    PolicyReport,
    PublishManifest,
    RollbackManifest,
    ScoreManifest,
    ScoringPlanManifest,
    StatesManifest,
)

Verdict = Literal["published", "disproved", "taken back", "not published"]
# The steps up to publishing that a night can't do without; a night may read a log that is loaded already.
NEEDED = NIGHT_STEPS[
    NIGHT_STEPS.index(Job.BUILD_CANDIDATE_BANK) : NIGHT_STEPS.index(Job.EXPORT_RECOMMENDATIONS)
]


@dataclass(frozen=True)
class NightReport:
    """What the warehouse says about one night, whose lists come from the run `run_id`."""

    night: str
    verdict: Verdict
    sentence: str  # says why, in one or two sentences
    remedy: str = ""  # what to do about it; empty if there is nothing to do
    run_id: str | None = None  # the run that is in force, or else the newest one
    run_key: str = ""
    in_force: str | None = None
    published_at: str | None = None  # None also if Delta's log no longer says it
    full: bool | None = None  # None: the scoring was never planned
    reason: str = ""  # why the night is full or incremental
    model: str = ""
    model_version: str = ""
    users: int | None = None
    stopped_at: str | None = None  # the first step that the run has not finished
    seconds: dict[str, float] = field(default_factory=dict)  # by step, in their order
    predicted_seconds: float | None = None
    predicted_cost: float | None = None  # None: the forecast was given no price
    forecast: ForecastComparison | None = None
    certificate: CertificateManifest | None = None
    audits: AuditManifest | None = None
    scoring: PolicyReport | None = None
    backend: BackendReport | None = None
    bank: BankManifest | None = None
    states: StatesManifest | None = None
    exports: dict[str, Any] = field(default_factory=dict)  # what each exporter reported
    evaluations: dict[str, EvaluationManifest] = field(default_factory=dict)  # by the name of their run
    later_run: str = ""  # says that a newer run of the night has not published

    @property
    def total_seconds(self) -> float:
        """The seconds of all steps together."""
        return sum(self.seconds.values())

    @property
    def failed_checks(self) -> list[CheckReport]:
        """The audits that do not hold and are not overridden."""
        audits = self.audits
        return [c for c in audits.checks if not c.holds and c.name not in audits.overridden] if audits else []


def report_night(record: Record, night: str, policy: str) -> NightReport:
    """Report one night.

    Args:
        record: what the warehouse records.
        night: the date of the night (YYYY-MM-DD).
        policy: the policy whose lists are published.
    """
    state = record.states.get(night) or derive_state(night, ())
    runs = record.scoring_runs(night)
    run_id = state.in_force or (runs[-1] if runs else None)
    jobs = record.rows.get(run_id or "", {})
    scored, plan = record.find(run_id, ScoreManifest), record.find(run_id, ScoringPlanManifest)
    published = record.find(run_id, PublishManifest)
    scoring = (published.scoring if published else None) or (scored.policies.get(policy) if scored else None)
    key = record.key_of(run_id) if run_id else ""
    forecast = scored.forecast if scored else None
    planned = record.find(f"{night}.plan-{key}", ForecastManifest)
    exported = record.find(run_id, ExportManifest)
    commit = state.served.get(state.in_force or "")
    audits = record.find(run_id, AuditManifest) or record.find(run_id, FailedAuditManifest)
    verdict, sentence, remedy = _judge(record, state, run_id, audits)
    states, bank = record.find(run_id, StatesManifest), record.find(run_id, BankManifest)
    return NightReport(
        night, verdict, sentence, remedy, run_id, key, state.in_force,
        published_at=record.commit_times.get(commit.version) if commit else None,
        full=plan.base is None if plan else None,
        reason=plan.why if plan else "",
        model=scored.model if scored else "",
        model_version=scored.model_version if scored else "",
        users=scoring.users if scoring else states.users if states else None,
        stopped_at=_find_stop(record, run_id),
        seconds={step: jobs[step].seconds for step in NIGHT_STEPS if step in jobs},
        predicted_seconds=planned.predicted_seconds if planned else None,
        predicted_cost=planned.predicted_cost if planned else None,
        forecast=forecast,
        certificate=record.find(run_id, CertificateManifest),
        audits=audits, scoring=scoring,
        backend=scored.backend if scored else None,
        bank=bank, states=states,
        exports=dict(exported.model_extra or {}) if exported else {},
        evaluations=record.evaluations(night),
        later_run=_describe_later(record, state, runs),
    )  # fmt: skip


def describe_check(check: CheckReport) -> str:
    """Describe an audit with its value and its limit."""
    about = "" if check.segment == "all" else f" of {check.segment} users"
    return f"{check.name}{about} is {check.value:.4g}, limit {'≤' if check.upper else '≥'} {check.limit:g}"


def run_steps_command(night: str, run_key: str) -> str:
    """Return the command that runs all steps of a night; the key of an earlier run resumes that run."""
    return f"lime night --ds {night} --run-key {run_key}"


def _judge(
    record: Record, state: NightState, run_id: str | None, audits: AuditManifest | None
) -> tuple[Verdict, str, str]:
    """Return the verdict about a night, the sentence that says why, and the remedy."""
    night = state.night
    if state.in_force in state.disproved:
        return (
            "disproved",
            f"The lists of run {state.in_force} are in force, and a full comparison has disproved them or "
            "lists that they were built on.",
            f"{describe_remedy(state)}.",
        )
    if state.in_force:
        return "published", f"The lists of run {state.in_force} are in force.{_recall(record, state)}", ""
    if state.commits:
        other = f"Score it again with {run_steps_command(night, 'again')}"
        return "taken back", f"The night was withdrawn, and it has no lists.{_recall(record, state)}", other
    if state.forgotten:
        lost = ", ".join(sorted(state.forgotten))
        why = (
            f"Run {lost} published the night, and Delta's log no longer says whether its lists are in force."
        )
        return "published", why, ""
    if run_id in state.disproved or Job.DISPROVED in record.rows.get(run_id or "", {}):
        why = f"A full comparison has disproved the lists of run {run_id}, so they can't be published."
        return "not published", why, "Score the night with night.reuse: false under a new --run-key."
    failed = [c for c in audits.checks if not c.holds and c.name not in audits.overridden] if audits else []
    if failed:
        stop = f"Run {run_id} failed its audits: {'; '.join(map(describe_check, failed))}."
        return "not published", stop, _mend_audits(night, record.key_of(run_id or ""), failed)
    step, key = _find_stop(record, run_id), record.key_of(run_id or "") or "again"
    stop = f"Run {run_id} has not finished the step {step}: it failed, was stopped, or is still running."
    return (
        "not published",
        stop,
        f"Read the end of the log of {step}, then go on with {run_steps_command(night, key)}",
    )


def _mend_audits(night: str, key: str, failed: list[CheckReport]) -> str:
    """Say what to do about failed audits: only those that judge a night by degree can be overridden."""
    if any(check.name not in get_args(SoftCheck) for check in failed):
        return f"Find out why, then score the night again with {run_steps_command(night, 'again')}"
    return (
        f"If this is right for {night}, say so in audits.overrides (night: {night}, check: {failed[0].name}, "
        f"reason: …) and go on with {run_steps_command(night, key)}"
    )


def _recall(record: Record, state: NightState) -> str:
    """Describe the last rollback of a night, with its reason; return an empty text if there was none."""
    last = state.commits[-1] if state.commits else None
    if last is None or last.by is None:
        return ""
    done = record.find(last.by, RollbackManifest)
    said = done.now if done and done.now else f"run {last.instead_of} was replaced"
    return f" Last rollback: {said} (its reason: {last.reason or 'none was given'})."


def _find_stop(record: Record, run_id: str | None) -> str | None:
    """Find the first step that a run has not finished; None if it has published."""
    done = record.rows.get(run_id or "", {})
    if Job.PUBLISH_RECOMMENDATIONS in done:
        return None
    if not done:
        return Job.INGEST_EVENTS
    return next((step for step in NEEDED if step not in done), None)


def _describe_later(record: Record, state: NightState, runs: list[str]) -> str:
    """Say which newer run than the one in force has not published; return an empty text if there is none."""
    newest = runs[-1] if runs else None
    if newest is None or not state.in_force or newest == state.in_force or newest in state.served:
        return ""
    stop = _find_stop(record, newest)
    return (
        f"The newer run {newest} (key {record.key_of(newest)}) stopped at {stop} or is still running."
        if stop
        else ""
    )
