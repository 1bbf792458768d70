"""Run `lime night`: all steps of a night in one Spark application, and tell people what happens."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table
from rich.text import Text

from jobs.command import run_steps
from jobs.lime.console import open_console
from jobs.lime.output import print_json, show, warn_of_slow_scoring
from jobs.output import Result, plain
from jobs.progress import Ticker, people_lines
from pipelines.settings.settings import Settings
from pipelines.steps import NIGHT_STEPS, Job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What is to be done after an error, by its exit code.
AFTER = {
    1: "the cause passes by itself: run the same command again, it goes on where it stopped",
    3: "a person must remove the cause that the error names; then the same command goes on where it stopped",
    70: "the cause is not known: report it, with what --verbose prints",
    130: "it was interrupted: the same command goes on where it stopped",
}


class StepRow(NamedTuple):
    """A step that has ended: its name, its time, and the counts that its manifest has."""

    step: str
    seconds: float
    reused: bool  # whether an earlier attempt of this run had done it
    users: int | None
    pairs: int | None
    rows: int | None


def run(args: argparse.Namespace) -> int:
    """Run all steps of the night; return the exit code."""
    args.output = NightOutput(args)
    return run_steps(args, NIGHT_STEPS, job="night")


def describe_step(step: str, values: Mapping[str, Any]) -> StepRow:
    """Return the row of a step from its manifest.

    Args:
        step: the name of the step.
        values: the manifest as plain values.
    """
    policies = list(values.get("policies", {}).values())
    if values.get("scoring"):  # the manifest of a published night holds the counts of its scoring
        policies = [values["scoring"]]
    sources = [
        values[name]["rows"]["loaded"] for name in ("items", "users", "events") if _has_rows(values, name)
    ]
    users = values.get("users") if isinstance(values.get("users"), int) else None
    if policies:
        users = max(policy.get("users", 0) for policy in policies)
    return StepRow(
        step,
        float(values.get("seconds", 0.0)),
        bool(values.get("reused", False)),
        users,
        sum(policy.get("pairs", 0) for policy in policies) if policies else None,
        sum(sources) if sources else values.get("candidates"),
    )


def describe_counts(row: StepRow) -> str:
    """Return what a step has done, as the end of a line: its pairs with their rate, or its rows or users."""
    if row.pairs is not None:
        rate = "" if row.reused or not row.seconds else f", {row.pairs / row.seconds / 1e6:,.2f} M pairs/s"
        return f", {row.pairs:,} pairs{rate}" if row.step == Job.SCORE_CANDIDATES else ""
    counts = ((row.users, "users"), (row.rows, "rows"))
    return "".join(f", {count:,} {name}" for count, name in counts if count is not None)


def _has_rows(values: Mapping[str, Any], source: str) -> bool:
    return isinstance(values.get(source), Mapping) and "rows" in values[source]


class NightOutput:
    """The output of a night: a plan before, a line for each step, and a table with the verdict at the end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.console = open_console()
        self.ticker = Ticker(people_lines(open_console(stderr=True)))
        self.expected: dict[str, float] = {}
        self.settings: Settings | None = None
        self.model = ""
        self.reports: dict[str, Any] = {}
        self.rows: list[StepRow] = []

    def start(self, settings: Settings) -> None:
        """Print what will be done, and warn if scoring will be slow."""
        self.settings, self.model = settings, settings.night.model
        if not self.args.json:
            self.console.print(
                f"night {self.args.ds}, run key {self.args.run_key}, model {self.model}, "
                f"{settings.night.k} items for each user\nsteps: {', '.join(NIGHT_STEPS)}"
            )
        warn_of_slow_scoring(settings)

    def session(self, spark: SparkSession) -> None:
        """Do nothing: people find the application by the name of the job."""

    def expect(self, expected: Mapping[str, float], why: str) -> None:
        """Print how long the night will take; the scoring step says later what it will score, and why."""
        self.expected = dict(expected)
        if not self.args.json:
            self.ticker.pause()
            known = f"about {sum(expected.values()):,.0f} s for the steps: " if expected else ""
            self.console.print(f"expected: {known}{why}")

    def result(self, job: str, result: Result, *, figures: bool = False) -> None:
        """Print a line for a step that has ended.

        Args:
            job: the name of the step.
            result: its manifest.
            figures: has no meaning here.
        """
        self.reports[job] = plain(result)
        row = describe_step(job, self.reports[job])
        self.rows.append(row)
        if not self.args.json:
            self.ticker.pause()
            done = "was done before, in" if row.reused else "is done in"
            line = f"{len(self.rows)}/{len(NIGHT_STEPS)} {job} {done} {row.seconds:,.1f} s"
            self.console.print(line + describe_counts(row) + self._left())

    def _left(self) -> str:
        """Say how long the steps that are left will take; empty if it is not known."""
        seconds = [value for step, value in self.expected.items() if step not in self.reports]
        return f"; about {sum(seconds):,.0f} s left" if seconds else ""

    def finish(self, app: str, seconds: float) -> None:
        """Print the table, the verdict and the next command."""
        self._end(0, [], seconds)

    def fail(self, code: int, errors: Sequence[str]) -> None:
        """Print the steps that have ended, the verdict and the next command."""
        self._end(code, errors, None)

    @property
    def verdict(self) -> str:
        """Whether the lists are published, in a sentence."""
        published = self.reports.get(Job.PUBLISH_RECOMMENDATIONS)
        if published is None:
            return "Nothing was published: readers find the lists that were in force before."
        certified = (published.get("certificate") or {}).get("users", 0)
        checks = (published.get("audits") or {}).get("checks", [])
        return (
            f"The night is published: run {published['run_id']}, certified on {certified:,} users, "
            f"{sum(check['holds'] for check in checks)} of {len(checks)} audits hold."
        )

    def next_command(self, code: int) -> str:
        """Return the command that a person would run next."""
        given = ["--config", self.args.config]
        if code:
            options = ["--ds", self.args.ds, "--run-key", self.args.run_key]
            return shlex.join(["lime", "night", *given, *options])
        return shlex.join(["lime", "status", *given])

    def _write_page(self) -> tuple[str | None, str]:
        """Write the page of the night; return its path, if there is one, and a sentence about it."""
        from pipelines.report.page import write_page
        from pipelines.report.tables import ReportError

        if self.settings is None:
            return None, "There is no page of the night, as the settings were not read."
        try:
            page = str(write_page(self.settings, self.args.ds))
        except ReportError as error:
            return None, f"There is no page of the night: {error}"
        return page, f"The page of the night: {page}"

    def _end(self, code: int, errors: Sequence[str], seconds: float | None) -> None:
        page, said = self._write_page()
        if self.args.json:
            steps = [row._asdict() | {"report": self.reports[row.step]} for row in self.rows]
            print_json(
                {
                    "command": "night", "exit_code": code, "errors": list(errors), "seconds": seconds,
                    "night": self.args.ds, "run_key": self.args.run_key, "model": self.model, "steps": steps,
                    "published": Job.PUBLISH_RECOMMENDATIONS in self.reports, "verdict": self.verdict,
                    "next": self.next_command(code), "page": page,
                }
            )  # fmt: skip
            return
        if self.rows:
            self.console.print(self._table(seconds))
        self.console.print(Text(self.verdict, style="bold red" if code else "bold green"))
        if code:
            self.console.print(f"What to do: {AFTER.get(code, AFTER[70])}.")
        self.console.print(said, soft_wrap=True)
        self.console.print(f"Next: {self.next_command(code)}", soft_wrap=True)

    def _table(self, seconds: float | None) -> Table:
        table = Table(show_footer=seconds is not None)
        table.add_column("step", footer="all, with the start of Spark")
        table.add_column("seconds", justify="right", footer=f"{seconds:,.1f}" if seconds is not None else "")
        for name in ("users", "pairs", "rows"):
            table.add_column(name, justify="right")
        for row in self.rows:
            counts = ("" if value is None else show(value) for value in row[3:])
            table.add_row(row.step, f"{row.seconds:,.1f}" + (" (before)" if row.reused else ""), *counts)
        return table
