"""Take back a published night, or go back to an earlier bundle of a model; one command each.

    python jobs/roll_back.py --config conf/local.yaml --ds 2017-12-04 --reason "prices were wrong"
    python jobs/roll_back.py --config conf/local.yaml --ds 2017-12-05 --model lime-mha --reason "fewer sales"

A night: the lists of the run before the one that stands come back, to the bit (`--to RUN_ID` names another);
without an earlier run the night is withdrawn, and readers find the night before it. A model: nights from
`--ds` on use the bundle before the champion (`--to VERSION` names another); the next one is a full night.
"""

from __future__ import annotations

import sys
import uuid

from jobs.command import night_date, parser, report, take_night, with_warehouse
from pipelines.tables import Warehouse


def main() -> int:
    """Parse and go back."""
    options = parser("roll_back", __doc__ or "")
    options.add_argument("--ds", required=True, type=night_date, help="the night, or a model's first one")
    options.add_argument("--model", help="a model of the settings, instead of the night's lists")
    options.add_argument("--to", help="run id of the night, or version of the model's bundle")
    options.add_argument("--reason", required=True, help="kept with the decision")
    options.add_argument(
        "--run-key", help="repeat an interrupted command under its name (default: a new one)"
    )
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.champions import roll_back_model
        from pipelines.rollback import roll_back_night

        if args.model:
            version = roll_back_model(warehouse, args.model, args.ds, args.reason, args.to)
            report("roll_back", {"model": args.model, "model_version": version, "valid_from": args.ds})
        else:
            key = args.run_key or f"roll-back-{uuid.uuid4().hex[:8]}"
            run = take_night(warehouse, args.ds, key)
            report("roll_back", roll_back_night(warehouse, run, args.reason, args.to))

    return with_warehouse(args.config, work, job="roll_back", night=args.ds)


if __name__ == "__main__":
    sys.exit(main())
