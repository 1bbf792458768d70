"""Train a model anew, compare it with its champion and the baselines, and promote it only if it is better.

    python jobs/challenge_model.py --config conf/local.yaml --ds 2017-12-31 [--model NAME]

The last `promotion.horizon_days` before `--ds` are left out of training; both models are measured on them. A
promoted bundle serves the nights from `--ds` on, the first of which is a full night. The exit code is 0
whether or not the new bundle is promoted.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser
from jobs.command import report, with_warehouse
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and run the challenge."""
    options = night_options(parser("challenge_model", __doc__ or ""))
    options.add_argument("--model", help="a model of the settings (default: night.model)")
    args = options.parse_args()

    def check(settings: Settings) -> None:
        check_models(settings, [args.model or settings.night.model])

    def work(warehouse: Warehouse) -> None:
        from pipelines.learn.challenge import challenge
        from pipelines.night_checks import check_eligible

        check_eligible(warehouse, args.ds, warehouse.settings.evaluate_policies)
        report("challenge_model", challenge(warehouse, args.ds, args.model or warehouse.settings.night.model))

    return with_warehouse(args, work, job="challenge_model", check=check, udfs=True)


if __name__ == "__main__":
    sys.exit(main())
