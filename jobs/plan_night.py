"""Forecast the cost of a night before it runs.

    python jobs/plan_night.py --config conf/local.yaml --ds 2017-12-04 [--run-key KEY] [--price-per-hour 0.05]

The job prints users, candidates, pairs, bytes, memory, tasks and seconds; it measures every core for a
second. Given the price of a core for an hour, or of a GPU where one scores, it also prints the cost. The exit
code is 3 if the night cannot run. A run that is at work keeps its lease. The scoring manifest of the run with
this key later shows the forecast and the measured cost together.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser, price
from jobs.command import report, with_warehouse
from pipelines.settings.checks import check_night
from pipelines.store.leases import find_run
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and print the forecast."""
    options = night_options(parser("plan_night", __doc__ or ""))
    options.add_argument(
        "--price-per-hour", type=price, help="price of a core for an hour, or of a GPU where one scores"
    )
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.night_checks import check_plan
        from pipelines.score.forecast import plan_night

        check_plan(warehouse, args.ds)
        # A forecast acquires no lease: it must not take the night from a run that is at work.
        forecast = plan_night(warehouse, find_run(warehouse, args.ds, args.run_key), args.price_per_hour)
        for name, value in forecast.to_report().items():
            print(f"{name:20}{value:>20,}" if isinstance(value, int | float) else f"{name:20}{value!s:>20}")
        report("plan_night", forecast)

    return with_warehouse(args, work, job="plan_night", check=check_night, udfs=True)


if __name__ == "__main__":
    sys.exit(main())
