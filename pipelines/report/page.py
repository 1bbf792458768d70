"""Write the page of a night: one HTML file that needs no other file and no network, and an index of all."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from pipelines.report import figures, texts
from pipelines.report.night_report import NightReport, report_night
from pipelines.report.record import read_record
from pipelines.report.samples import draw_examples
from pipelines.report.tables import ReportError
from pipelines.schemas import REPORTS
from pipelines.settings.base import local_path
from pipelines.settings.settings import Settings

EARLIER_NIGHTS = 30  # nights whose values a sparkline shows, in addition to the night itself
DATE = re.compile(r"(?<!\d)\d{4}-\d{2}-\d{2}(?:\.\d+)?")  # a date, or a run, whose id begins with one


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
    reports = [report_night(record, each, policy) for each in nights]
    page = root / REPORTS / f"night={night}.html"
    _write(page, _render_night(settings, reports, nights.index(night)))
    written = {path.name for path in page.parent.glob("night=*.html")}
    _write(page.parent / "index.html", _render("index", reports=reports[::-1], written=written))
    return page


def _render_night(settings: Settings, reports: Sequence[NightReport], place: int) -> str:
    """Render the page of one of all nights, the oldest of which is the first."""
    report, earlier = reports[place], reports[max(0, place - EARLIER_NIGHTS) : place]
    audits = figures.list_audits(report, earlier)
    return _render(
        "night",
        report=report,
        audits=[row for row in audits if figures.is_by_degree(row)],
        rules=[row for row in audits if not figures.is_by_degree(row)],
        segments=figures.list_segments(report),
        counts=figures.list_counts(report),
        pairs=figures.list_pairs(report),
        steps=figures.list_steps(report),
        times=figures.draw_times(report, earlier),
        evaluations=figures.list_evaluations(report),
        examples=draw_examples(settings, report, settings.night.policy.name),
        before=reports[place - 1].night if place else None,
        after=reports[place + 1].night if place + 1 < len(reports) else None,
    )


def _mark_dates(text: str) -> Markup:
    """Escape a sentence, and mark its dates, which are not wrapped at the end of a line."""
    return Markup(DATE.sub(r"<time>\g<0></time>", str(escape(text))))


def _allow_breaks(name: str) -> Markup:
    """Escape the name of an audit or of a step, which may be wrapped after each underscore."""
    return escape(name).replace("_", Markup("_<wbr>"))


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
    environment.filters |= {"dates": _mark_dates, "breaks": _allow_breaks}
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
