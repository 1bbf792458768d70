"""Show the status of a warehouse on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipelines.report.facts import Status
from pipelines.report.texts import count, show_audits, show_bytes, show_certificate, show_forecast, show_kind
from pipelines.steps import Job

COLOURS = {"published": "green", "disproved": "bold red", "taken back": "yellow", "not published": "bold red"}

SHORT = {
    Job.INGEST_EVENTS: "ingest",
    Job.BUILD_CANDIDATE_BANK: "bank",
    Job.BUILD_LINK_STATES: "states",
    Job.SCORE_CANDIDATES: "score",
    Job.VERIFY_NIGHT: "verify",
    Job.AUDIT_RECOMMENDATIONS: "audit",
    Job.PUBLISH_RECOMMENDATIONS: "publish",
    Job.EXPORT_RECOMMENDATIONS: "export",
}


def show_status(status: Status) -> RenderableType:
    """Return the status as something that a Rich console prints."""
    if status.next_step:
        return Text(status.next_step)
    parts = [_headline(status), _problems(status), _nights(status), _runs(status), _seconds(status)]
    if status.champions:
        parts.append(_champions(status))
    if status.exports:
        parts.append(_exports(status))
    return Group(*parts, _tables(status))


def _headline(status: Status) -> Text:
    last = status.nights[0]
    text = Text(f"Last night {last.night}: ")
    text.append(last.verdict, style=COLOURS[last.verdict])
    text.append(f". {last.sentence}\n")
    served = f"Readers are served night {status.served}." if status.served else "No lists are in force."
    return text.append(
        f"{served} The warehouse {status.warehouse} records {count(status.recorded, 'night')}."
    )


def _problems(status: Status) -> RenderableType:
    if not status.problems:
        return Text("\nNothing is wrong.", style="green")
    text = Text("\nWhat is wrong")
    for problem in status.problems:
        text.append(f"\n{problem.level}: ", style="bold red" if problem.level == "fault" else "yellow")
        text.append(f"{problem.what}\n  → {problem.remedy}")
    return text


def _nights(status: Status) -> RenderableType:
    table = _table("night", "verdict", "users:", "kind", "certificate", "audits")
    for report in status.nights:
        _row(
            table,
            report.night,
            Text(report.verdict, style=COLOURS[report.verdict]),
            "–" if report.users is None else f"{report.users:,}",
            show_kind(report),
            show_certificate(report),
            show_audits(report),
        )
    return _titled("The last nights", table)


def _runs(status: Status) -> RenderableType:
    text = Text("\nTheir runs")
    for report in status.nights:
        key = f" (run key {report.run_key})" if report.run_key else ""
        when = f", published {report.published_at}" if report.published_at else ""
        text.append(f"\n{report.night}  run {report.run_id or '–'}{key}{when}")
        if report.reason:
            text.append(f"; {report.reason}")
        if report.verdict != "published":
            text.append(f"; {report.sentence}", style=COLOURS[report.verdict])
    return text


def _seconds(status: Status) -> RenderableType:
    table = _table("night", *(f"{name}:" for name in SHORT.values()), "all:")
    for report in status.nights:
        cells = [f"{report.seconds[step]:.1f}" if step in report.seconds else "–" for step in SHORT]
        _row(table, report.night, *cells, f"{report.total_seconds:.1f}")
    titled = _titled("Seconds of each step", table)
    forecasts = [r for r in status.nights if r.forecast or r.predicted_seconds is not None]
    lines = [f"{r.night}  {show_forecast(r)}" for r in forecasts]
    return Group(titled, Text("\n".join(["Scoring time, forecast / actual", *lines]))) if lines else titled


def _champions(status: Status) -> RenderableType:
    table = _table("model", "version", "since", "age:", "reason")
    for each in status.champions:
        _row(table, each.model, each.model_version, each.since, count(each.age_days, "day"), each.reason)
    return _titled("Champions", table)


def _exports(status: Status) -> RenderableType:
    table = _table("place", "run", "lists:")
    for each in status.exports:
        _row(table, each.place, each.run_id or "never exported", str(each.report.get("lists", "–")))
    return _titled("Exports", table)


def _tables(status: Status) -> RenderableType:
    table = _table("table", "files:", "bytes:")
    for each in status.tables:
        _row(table, each.name, f"{each.files:,}", show_bytes(each.bytes))
    files, size = sum(each.files for each in status.tables), sum(each.bytes for each in status.tables)
    _row(table, "all", f"{files:,}", show_bytes(size))
    return _titled("Disk used by the newest version of each table", table)


def _titled(title: str, table: Table) -> RenderableType:
    return Group(Text(f"\n{title}"), table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        _column(table, name)
    return table


def _column(table: Table, name: str) -> None:
    """Add a column; a name with a colon at its end is one of numbers."""
    table.add_column(
        name.removesuffix(":"), justify="right" if name.endswith(":") else "left", overflow="fold"
    )


def _row(table: Table, *cells: str | Text) -> None:
    """Add a row of plain texts, in which Rich reads no markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))
