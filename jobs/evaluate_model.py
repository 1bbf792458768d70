"""Measure models offline as of a night, and compare them with popularity and personal frequency."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import EVALUATE_MODEL
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Evaluate the models."""

    def check(settings: Settings) -> None:
        check_models(settings, args.model or [])

    def work(warehouse: Warehouse) -> None:
        from pipelines.learn.evaluate import evaluate_models
        from pipelines.night_checks import check_eligible

        check_eligible(warehouse, args.ds, warehouse.settings.evaluate_policies)
        names = args.model or [model.name for model in warehouse.settings.models]
        manifest = evaluate_models(
            warehouse,
            args.ds,
            args.run_key,
            names,
            horizon_days=args.horizon_days,
            min_events=args.min_events,
        )
        args.output.result("evaluate_model", manifest)

    return with_warehouse(args, work, job="evaluate_model", check=check, udfs=True)


def main() -> int:
    """Parse the command line and evaluate the models."""
    return run(parse(EVALUATE_MODEL))


if __name__ == "__main__":
    sys.exit(main())
