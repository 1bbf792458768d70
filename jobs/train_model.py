"""Train models on all events before a cut-off and write their bundles.

    python jobs/train_model.py --config conf/local.yaml --ds 2017-12-04 [--model NAME …]

`--ds` is the cut-off: events from that day on are not read. Without `--model`, the job trains every model of
the settings. A bundle that was trained from the same settings and table versions is kept.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_date, parser
from jobs.command import report, with_warehouse
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and train the models."""
    options = parser("train_model", __doc__ or "")
    options.add_argument("--ds", required=True, type=night_date, help="the cut-off day")
    options.add_argument("--model", action="append", help="a model of the settings; may be repeated")
    args = options.parse_args()

    def check(settings: Settings) -> None:
        check_models(settings, args.model or [])

    def work(warehouse: Warehouse) -> None:
        from pipelines.learn.train import train_models

        names = args.model or [model.name for model in warehouse.settings.models]
        report("train_model", train_models(warehouse, args.ds, names))

    return with_warehouse(args, work, job="train_model", check=check)


if __name__ == "__main__":
    sys.exit(main())
