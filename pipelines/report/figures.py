"""Choose the figures of a night that its page shows: audits, counts, segments of users, seconds and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args

from markupsafe import Markup

from pipelines.report import texts
from pipelines.report.night_report import NightReport, describe_check
from pipelines.report.sparkline import draw_sparkline
from pipelines.settings.night import SoftCheck
from pipelines.steps import NIGHT_STEPS, Job
from pipelines.store.manifests import CheckReport, EvaluationManifest

# The columns of an offline evaluation; one of lists and one of labels have different ones.
MEASURES = {
    "recall": "Recall", "recall_error": "± s.e.", "ndcg": "NDCG", "hit_rate": "Hit rate",
    "coverage": "Coverage", "auc": "AUC", "grouped_auc": "AUC within users", "log_loss": "Log loss",
    "calibration": "Calibration",
}  # fmt: skip


class Figure(NamedTuple):
    """A number with its name, as it is stored and as it is shown."""

    label: str
    value: float
    shown: str


class AuditRow(NamedTuple):
    """An audit with its values of earlier nights."""

    check: CheckReport
    overridden: str | None  # the reason, if the audit was overridden
    line: Markup


class SegmentRow(NamedTuple):
    """The users of a segment, and how much their lists and scores differ from those of the night before."""

    name: str
    users: int | None
    short: int | None  # users whose lists are shorter than K
    churn: float | None  # 1 − jaccard
    drift: float | None  # the population stability index of the scores


class StepRow(NamedTuple):
    """A step with its seconds, and its share of the longest step."""

    name: str
    seconds: float | None
    share: float


class EvaluationTable(NamedTuple):
    """An offline evaluation: the measures that it has, and their values of each model and policy."""

    run_id: str
    done: EvaluationManifest
    measures: dict[str, str]
    rows: list[dict[str, Any]]


def list_audits(report: NightReport, earlier: Sequence[NightReport]) -> list[AuditRow]:
    """Return the audits with their values of earlier nights, those that failed first."""
    rows = []
    for check in report.audits.checks if report.audits else []:
        values = [
            old.value
            for night in earlier
            for old in (night.audits.checks if night.audits else [])
            if (old.name, old.segment) == (check.name, check.segment)
        ]
        title = f"{describe_check(check)}; values of {texts.count(len(values), 'earlier night')}: " + (
            ", ".join(f"{value:.4g}" for value in values) or "none"
        )
        reason = report.audits.overridden.get(check.name) if report.audits and not check.holds else None
        rows.append(AuditRow(check, reason, draw_sparkline([*values, check.value], check.limit, title)))
    return sorted(rows, key=lambda row: row.check.holds)


def is_by_degree(row: AuditRow) -> bool:
    """Return whether an audit judges a night by degree, and not by what must always hold."""
    return row.check.name in get_args(SoftCheck)


def list_counts(report: NightReport) -> list[Figure]:
    """Return what the manifests count about users, items, coverage and concentration."""
    scoring, states, bank = report.scoring, report.states, report.bank
    found = [
        _count("Users with lists", report.users),
        _count("Cold users, who have no events", states.cold_users if states else None),
        _count("Events in the histories", states.events if states else None),
        _count("Candidates", bank.candidates if bank else None),
        _count("Users whose lists are shorter than K", scoring.users_with_shortfall if scoring else None),
        _count("Users left out because of damaged rows", scoring.users_left_out if scoring else None),
        *_shares(report),
    ]
    return [figure for figure in found if figure]


def list_pairs(report: NightReport) -> list[Figure]:
    """Return the pairs that the night scored and those that it avoided."""
    scoring = report.scoring
    if scoring is None:
        return []
    both = scoring.pairs + scoring.pairs_avoided
    found = [
        _count("Pairs scored", scoring.pairs),
        _count("Pairs avoided", scoring.pairs_avoided),
        _share("Share of pairs avoided", scoring.pairs_avoided / both) if both else None,
        _count("Pairs scored per second", scoring.pairs_per_second),
        _count("Users whose lists were taken over", scoring.users_taken_over),
    ]
    return [figure for figure in found if figure]


def list_segments(report: NightReport) -> list[SegmentRow]:
    """Return the segments of users that the audits have counted or compared with an earlier night."""
    if report.audits is None:
        return []
    counted = report.audits.segments
    compared = {(check.segment, check.name): check.value for check in report.audits.checks}
    names = [name for name in ("cold", "active", "idle") if name in counted or (name, "jaccard") in compared]
    rows = []
    for name in names:
        users, overlap = counted.get(name), compared.get((name, "jaccard"))
        rows.append(
            SegmentRow(
                name,
                users.users if users else None,
                users.users_with_shortfall if users else None,
                None if overlap is None else 1 - overlap,
                compared.get((name, "psi")),
            )
        )
    return rows


def list_steps(report: NightReport) -> list[StepRow]:
    """Return all steps; the export is left out if the settings named no place to export to."""
    seconds = report.seconds
    longest = max(seconds.values(), default=0.0) or 1.0
    shown = [step for step in NIGHT_STEPS if step in seconds or step != Job.EXPORT_RECOMMENDATIONS]
    return [StepRow(step, seconds.get(step), seconds.get(step, 0.0) / longest) for step in shown]


def draw_times(report: NightReport, earlier: Sequence[NightReport]) -> Markup:
    """Draw the seconds of all steps of this night and of those before it."""
    values = [night.total_seconds for night in (*earlier, report)]
    title = f"all steps of the last {texts.count(len(values), 'night')}: " + ", ".join(
        texts.show_seconds(value) for value in values
    )
    return draw_sparkline(values, float("inf"), title)


def list_evaluations(report: NightReport) -> list[EvaluationTable]:
    """Return the offline evaluations as of the night."""
    tables = []
    for run_id, done in report.evaluations.items():
        measures = {key: name for key, name in MEASURES.items() if any(key in row for row in done.rows)}
        best = next(iter(measures), "")
        rows = sorted(done.rows, key=lambda row: (str(row.get("policy")), -float(row.get(best) or 0)))
        tables.append(EvaluationTable(run_id, done, measures, rows))
    return tables


def _shares(report: NightReport) -> Iterator[Figure]:
    """Yield the coverage and the concentration of the lists, which the audits measure."""
    names = {
        "item_coverage": "Coverage: share of the eligible items that are in a list",
        "top_share": "Concentration: share of places that the top 1 % of items take",
    }
    for check in report.audits.checks if report.audits else []:
        if check.name in names:
            yield _share(names[check.name], check.value)


def _count(label: str, value: float | None) -> Figure | None:
    return None if value is None else Figure(label, value, f"{value:,.0f}")


def _share(label: str, value: float) -> Figure:
    return Figure(label, value, texts.show_share(value))
