"""Measure models offline as of a night, and compare them with popularity and personal frequency.

    python jobs/evaluate_model.py --config conf/local.yaml --ds 2017-12-04 [--run-key KEY]

The job scores every model under every evaluation policy of the settings. It writes to tables of its own: it
publishes nothing and changes no night. The events of the weeks after the night must have been ingested.
"""

from __future__ import annotations

import sys

from jobs.arguments import count, night_options, parser, short_run_key
from jobs.command import report, with_warehouse
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and evaluate the models."""
    options = night_options(parser("evaluate_model", __doc__ or ""), key=short_run_key)
    options.add_argument("--model", action="append", help="a model of the settings; may be repeated")
    options.add_argument(
        "--horizon-days",
        type=count,
        default=28,
        help="number of days after the night whose events are the truth",
    )
    options.add_argument(
        "--min-events", type=count, default=20, help="number of events that a user needs to be counted"
    )
    args = options.parse_args()

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
        report("evaluate_model", manifest)

    return with_warehouse(args, work, job="evaluate_model", check=check, udfs=True)


if __name__ == "__main__":
    sys.exit(main())
