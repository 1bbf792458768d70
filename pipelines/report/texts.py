"""Show numbers and facts of a night as short texts, on the terminal and on the page alike."""

from __future__ import annotations

import math

from pipelines.report.night_report import NightReport


def show_seconds(seconds: float) -> str:
    """Show a duration in the unit that a person would choose."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def show_bytes(size: float) -> str:
    """Show a number of bytes in the unit that a person would choose."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def show_value(value: float) -> str:
    """Show the value of an audit: whole numbers as such, others with four digits behind the point."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.4f}" if abs(value) >= 0.00005 else f"{value:.1e}"


def show_share(value: float) -> str:
    """Show a share of 1 as a percentage."""
    return f"{100 * value:.2f} %" if math.isfinite(value) else show_value(value)


def show_cost(cost: float) -> str:
    """Show a cost, in the currency of the price, with enough digits for a cheap night."""
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.4f}"


def show_kind(report: NightReport) -> str:
    """Show whether a night is full or incremental."""
    return "–" if report.full is None else "full" if report.full else "incremental"


def show_audits(report: NightReport) -> str:
    """Show how many audits of a night passed, failed and were overridden."""
    if report.audits is None:
        return "–"
    failed = len(report.failed_checks)
    holds = sum(check.holds for check in report.audits.checks)
    overridden = len(report.audits.checks) - holds - failed
    parts = [f"{holds} passed"]
    parts += [f"{overridden} overridden"] if overridden else []
    parts += [f"{failed} failed"] if failed else []
    return ", ".join(parts)


def show_certificate(report: NightReport) -> str:
    """Show the certificate of a night: how many users passed it."""
    done = report.certificate
    return "–" if done is None else f"{done.users:,} users {'exact' if done.passed else 'FAILED'}"


def show_forecast(report: NightReport) -> str:
    """Show the forecast of the scoring time next to the actual time, and the cost if the price was given."""
    if done := report.forecast:
        cost = "" if done.cost is None else f", cost {show_cost(done.cost)}"
        return f"{show_seconds(done.predicted_seconds)} / {show_seconds(done.actual_seconds)}{cost}"
    return f"{show_seconds(report.predicted_seconds)} / –" if report.predicted_seconds is not None else "–"


def count(number: int, what: str) -> str:
    """Return a number with a noun, in the plural if need be."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
