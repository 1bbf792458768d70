"""Write the page of a night: one HTML file that needs no other file and no network, and an index of all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from pipelines.report import texts
from pipelines.report.night_report import NightReport, describe_check, report_night
from pipelines.report.record import Record, read_record
from pipelines.report.samples import draw_examples
from pipelines.report.sparkline import draw_sparkline
from pipelines.report.tables import ReportError
from pipelines.schemas import REPORTS
from pipelines.settings.base import local_path
from pipelines.settings.settings import Settings
from pipelines.steps import NIGHT_STEPS, Job
from pipelines.store.manifests import CheckReport

EARLIER_NIGHTS = 30  # nights whose values a sparkline shows, in addition to the night itself


class AuditRow(NamedTuple):
    """An audit with its values of earlier nights."""

    check: CheckReport
    overridden: str | None  # the reason, if the audit was overridden
    line: Markup


class StepRow(NamedTuple):
    """A step with its seconds, and its share of the longest step."""

    name: str
    seconds: float | None
    share: float


def write_page(settings: Settings, night: str) -> Path:
    """Write the page of a night, and the index of all nights next to it; return the page's path.

    Args:
        settings: the settings, which name the warehouse; it must lie in a local folder.
        night: the date of the night (YYYY-MM-DD), published or not.

    Raises:
        ReportError: no run has taken the night, the warehouse is not in a local folder, or a table or the
            folder of the pages can't be used.
    """
    root = local_path(settings.warehouse)
    if root is None:
        raise ReportError(
            f"the warehouse {settings.warehouse} is not in a local folder, and pages are written into local "
            "folders alone; mount the storage, or use the status"
        )
    record, policy = read_record(settings), settings.night.policy.name
    nights = record.nights
    if night not in nights:
        known = f"it records {len(nights)}, from {nights[0]} to {nights[-1]}" if nights else "it records none"
        raise ReportError(
            f"no run has taken night {night} in the warehouse {settings.warehouse}: {known}; name one of "
            "them with --ds, or run the night first"
        )
    reports = [report_night(record, each, policy) for each in reversed(nights)]
    report = next(each for each in reports if each.night == night)
    page = root / REPORTS / f"night={night}.html"
    _write(page, _render_night(settings, record, report, policy))
    written = {path.name for path in page.parent.glob("night=*.html")}
    _write(page.parent / "index.html", _render("index", reports=reports, written=written))
    return page


def _render_night(settings: Settings, record: Record, report: NightReport, policy: str) -> str:
    nights = record.nights
    place = nights.index(report.night)
    earlier = [report_night(record, each, policy) for each in nights[max(0, place - EARLIER_NIGHTS) : place]]
    return _render(
        "night",
        report=report,
        audits=_list_audits(report, earlier),
        steps=_list_steps(report),
        facts=_list_facts(report),
        examples=draw_examples(settings, report, policy),
        before=nights[place - 1] if place else None,
        after=nights[place + 1] if place + 1 < len(nights) else None,
    )


def _list_audits(report: NightReport, earlier: Sequence[NightReport]) -> list[AuditRow]:
    """Return the audits of a night with their sparklines, those that failed first."""
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


def _list_steps(report: NightReport) -> list[StepRow]:
    """Return all steps; the export is left out if the settings named no place to export to."""
    seconds = report.seconds
    longest = max(seconds.values(), default=0.0) or 1.0
    shown = [step for step in NIGHT_STEPS if step in seconds or step != Job.EXPORT_RECOMMENDATIONS]
    return [StepRow(step, seconds.get(step), seconds.get(step, 0.0) / longest) for step in shown]


def _list_facts(report: NightReport) -> list[tuple[str, float, str]]:
    """Return what the manifests count about users, items, churn and pairs: label, value, and shown value."""
    facts: list[tuple[str, float, str]] = []

    def add(label: str, value: float | None, share: bool = False) -> None:
        if value is not None:
            facts.append((label, value, f"{100 * value:.2f} %" if share else f"{value:,.0f}"))

    scoring, states, bank = report.scoring, report.states, report.bank
    add("Users with lists", report.users)
    add("Cold users, who have no events", states.cold_users if states else None)
    add("Events in the histories", states.events if states else None)
    add("Candidates", bank.candidates if bank else None)
    add("Users whose lists are shorter than K", scoring.users_with_shortfall if scoring else None)
    add("Users left out because of damaged rows", scoring.users_left_out if scoring else None)
    add("Users whose lists were taken over", scoring.users_taken_over if scoring else None)
    add("Pairs scored", scoring.pairs if scoring else None)
    add("Pairs avoided", scoring.pairs_avoided if scoring else None)
    add("Pairs scored per second", scoring.pairs_per_second if scoring else None)
    for check in report.audits.checks if report.audits else []:
        if check.name == "jaccard":
            add(f"Churn of {check.segment} users: 1 − jaccard", 1 - check.value, share=True)
        if check.name == "item_coverage":
            add("Coverage: share of the eligible items that are in a list", check.value, share=True)
        if check.name == "top_share":
            add("Concentration: share of places that the top 1 % of items take", check.value, share=True)
    return facts


def _render(name: str, **values: Any) -> str:
    """Render a template of this folder, with everything escaped that is not markup of ours."""
    folder = files(__package__)
    sources = {f"{each}.html.j2": (folder / f"{each}.html.j2").read_text("utf-8") for each in ("base", name)}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    css = Markup((folder / "page.css").read_text("utf-8"))
    return environment.get_template(f"{name}.html.j2").render(css=css, texts=texts, **values)


def _write(path: Path, text: str) -> None:
    """Write a file at once, so that nobody reads half of a page."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        new.write_text(text, "utf-8")
        new.replace(path)
    except OSError as error:
        raise ReportError(
            f"the page {path} can't be written: {error.strerror}; check space and rights"
        ) from error
