"""Take back a published night, or go back to an earlier bundle of a model; one command each.

    python jobs/roll_back.py --config conf/local.yaml --ds 2017-12-04 --reason "prices were wrong"
    python jobs/roll_back.py --config conf/local.yaml --ds 2017-12-05 --model lime-mha --reason "fewer sales"

A night: the lists that were in force before come into force again, to the bit. Lists that were taken back
themselves, or that a full comparison has disproved, are passed over; without any other the night is
withdrawn, and readers find the night before it. `--to RUN_ID` names the lists that shall come into force.
`--from RUN_ID` says which run is to be taken back: only with it a second run is taken back right after a
first, so a command that is sent twice does its work once. A model: nights from `--ds` on use the bundle
before the champion (`--to VERSION` names another); the next one is a full night.
"""

from __future__ import annotations

import sys
import uuid

from jobs.arguments import night_date, parser, run_key, words
from jobs.command import report, take_night, with_warehouse
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse and go back."""
    options = parser("roll_back", __doc__ or "")
    options.add_argument("--ds", required=True, type=night_date, help="the night, or a model's first one")
    options.add_argument("--model", help="a model of the settings, instead of the night's lists")
    options.add_argument("--to", help="run id of the night, or version of the model's bundle")
    options.add_argument(
        "--from",
        dest="expected",
        metavar="RUN_ID",
        help="take back this run, or nothing if it is not in force",
    )
    options.add_argument("--reason", required=True, type=words, help="kept with the decision")
    options.add_argument(
        "--run-key", type=run_key, help="repeat an interrupted command under its name (default: a new one)"
    )
    args = options.parse_args()
    if args.model and args.expected:
        options.error("--from names a run of a night; it does not go with --model")

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
            # What is refused must not take the night from a run that is at work.
            if find_run(warehouse, args.ds, key).epoch is None:
                plan_rollback(warehouse, args.ds, args.to, expected=args.expected)
            run = take_night(warehouse, args.ds, key)
            done = roll_back_night(warehouse, run, args.reason, args.to, expected=args.expected)
            report("roll_back", done)

    return with_warehouse(args, work, job="roll_back", check=check)


if __name__ == "__main__":
    sys.exit(main())
