"""Print households with their lists, the offline metrics and the seconds of the demo's steps.

The pages of the nights show everything else. Every number comes from the tables or from the demo's clock.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pipelines.report.figures import EvaluationTable, list_evaluations
from pipelines.report.night_report import report_night
from pipelines.report.record import read_record
from pipelines.report.samples import ExampleList, draw_examples
from pipelines.settings.settings import Settings

HOUSEHOLDS = 3


def print_report(settings: Settings, night: str, seconds: Mapping[str, float]) -> None:
    """Print the report of a night that was evaluated.

    Args:
        settings: the settings of the demo.
        night: the night of the lists and of the evaluation.
        seconds: the wall-clock seconds of the demo's steps.
    """
    policy = settings.night.policy.name
    report = report_night(read_record(settings), night, policy)
    for example in draw_examples(settings, report, policy)[:HOUSEHOLDS]:
        _print_household(example)
    for evaluation in list_evaluations(report):
        _print_evaluation(evaluation)
    print("\nSeconds of the demo's steps:")
    for step, value in seconds.items():
        print(f"  {value:6.0f}  {step}")


def _print_household(example: ExampleList) -> None:
    """Print what a household bought last, and the first items of its list."""
    print(f"\nHousehold {example.user}")
    print(f"  lately: {'; '.join(item.text for _, item in example.last)}")
    print(f"  first {len(example.items)} of {example.length}; again: bought in the four weeks before")
    for rank, item in enumerate(example.items, 1):
        print(f"  {rank:2d}. {item.text}{'  (again)' if item.again else ''}")


def _print_evaluation(evaluation: EvaluationTable) -> None:
    """Print the metrics of each model under each policy."""
    done = evaluation.done
    rows = pd.DataFrame(evaluation.rows)[["policy", "model", "users", *evaluation.measures]]
    print(f"\nOffline, {done.horizon_days} days after {done.night}, at {done.k}, macro over households:")
    print(rows.rename(columns=evaluation.measures).to_string(index=False))
