"""Take back a published night, or return to an earlier bundle of a model.

    python jobs/roll_back.py --config conf/local.yaml --ds 2017-12-04 --reason "prices were wrong"
    python jobs/roll_back.py --config conf/local.yaml --ds 2017-12-05 --model lime-mha --reason "fewer sales"

Without `--model`, the job restores the lists of the night that were in force before, bit for bit. It passes
over lists that were themselves taken back or that a full comparison has disproved. If no other lists remain,
the night is withdrawn and readers find the night before it. `--to RUN_ID` names the lists to restore. `--from
RUN_ID` names the run to take back. A second run can be taken back right after a first one only with `--from`,
so that a command that is sent twice does its work once.

With `--model`, the nights from `--ds` on use the bundle before the champion, or the one that `--to VERSION`
names; the next night is a full night.
"""

from __future__ import annotations

import argparse
import sys
import uuid

from jobs.arguments import night_date, parser, run_key, words
from jobs.command import report, take_night, with_warehouse
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def parse() -> argparse.Namespace:
    """Parse the command line."""
    options = parser("roll_back", __doc__ or "")
    options.add_argument(
        "--ds", required=True, type=night_date, help="the night, or the first night of the model's bundle"
    )
    options.add_argument("--model", help="roll back this model of the settings, not the night's lists")
    options.add_argument("--to", help="run id of the night to restore, or version of the model's bundle")
    options.add_argument(
        "--from",
        dest="expected",
        metavar="RUN_ID",
        help="take back this run, or nothing if it is not in force",
    )
    options.add_argument(
        "--reason", required=True, type=words, help="the reason, which is kept with the decision"
    )
    options.add_argument(
        "--run-key", type=run_key, help="repeat an interrupted command under its name (default: a new one)"
    )
    args = options.parse_args()
    if args.model and args.expected:
        options.error("--from names a run of a night, so it cannot be combined with --model")
    return args


def main() -> int:
    """Parse the command line and roll back."""
    args = parse()

    def check(settings: Settings) -> None:
        if args.model:
            check_models(settings, [args.model])

    def work(warehouse: Warehouse) -> None:
        from pipelines.models.champions import roll_back_model
        from pipelines.operate.rollback import plan_rollback, roll_back_night
        from pipelines.store.leases import find_run

        if args.model:
            version = roll_back_model(warehouse, args.model, args.ds, args.reason, args.to)
            report("roll_back", {"model": args.model, "model_version": version, "valid_from": args.ds})
        else:
            key = args.run_key or f"roll-back-{uuid.uuid4().hex[:8]}"
            # A refused rollback must not take the night from a run that is at work.
            if find_run(warehouse, args.ds, key).epoch is None:
                plan_rollback(warehouse, args.ds, args.to, expected=args.expected)
            run = take_night(warehouse, args.ds, key)
            done = roll_back_night(warehouse, run, args.reason, args.to, expected=args.expected)
            report("roll_back", done)

    return with_warehouse(args, work, job="roll_back", check=check)


if __name__ == "__main__":
    sys.exit(main())
