"""Forecast the cost of a night before it runs."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import PLAN_NIGHT
from pipelines.settings.checks import check_night
from pipelines.store.leases import find_run
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Print the forecast."""

    def work(warehouse: Warehouse) -> None:
        from pipelines.night_checks import check_plan
        from pipelines.score.forecast import plan_night

        check_plan(warehouse, args.ds)
        # A forecast acquires no lease: it must not take the night from a run that is at work.
        forecast = plan_night(warehouse, find_run(warehouse, args.ds, args.run_key), args.price_per_hour)
        args.output.result("plan_night", forecast, figures=True)

    return with_warehouse(args, work, job="plan_night", check=check_night, udfs=True)


def main() -> int:
    """Parse the command line and print the forecast."""
    return run(parse(PLAN_NIGHT))


if __name__ == "__main__":
    sys.exit(main())
