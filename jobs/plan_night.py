"""What a night will take, before it runs.

    python jobs/plan_night.py --config conf/local.yaml --ds 2017-12-04 [--run-key KEY] [--price-per-hour 0.05]

Prints users, candidates, pairs, bytes, memory, tasks, seconds (every core is measured for a second) and,
at a given price of a core for an hour (of a GPU, where one scores), the cost. Exit 3 when the night
cannot run. Takes nothing from a run that is at work; the scoring manifest of the run with this key then shows
what it did take, too.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser, price
from jobs.command import report, with_warehouse
from pipelines.settings.checks import check_night
from pipelines.store.leases import find_run
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse and plan."""
    options = night_options(parser("plan_night", __doc__ or ""))
    options.add_argument("--price-per-hour", type=price, help="of a core, or of a GPU where one scores")
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.night_checks import check_plan
        from pipelines.score.forecast import plan_night

        check_plan(warehouse, args.ds)
        # No lease: a forecast must not take the night from a run that is at work.
        forecast = plan_night(warehouse, find_run(warehouse, args.ds, args.run_key), args.price_per_hour)
        for name, value in forecast.to_report().items():
            print(f"{name:20}{value:>20,}" if isinstance(value, int | float) else f"{name:20}{value!s:>20}")
        report("plan_night", forecast)

    return with_warehouse(args, work, job="plan_night", check=check_night, udfs=True)


if __name__ == "__main__":
    sys.exit(main())
