"""Certify the staged lists of sampled users against the unfolded model.

    python jobs/verify_night.py --config conf/local.yaml --ds 2017-12-04 [--run-key KEY] [--full]

`--full` also scores all users against all candidates again and compares every list: an incremental night must
give the same lists as a full one.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser
from jobs.command import report, take_night, with_warehouse
from pipelines.settings.checks import check_night
from pipelines.steps import Job
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and certify the lists."""
    options = night_options(parser("verify_night", __doc__ or ""))
    options.add_argument("--full", action="store_true", help="compare every list with a full night's")
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.night_checks import check_steps
        from pipelines.publish.full_comparison import verify_full
        from pipelines.publish.verify_night import verify_night

        check_steps(warehouse, args.ds, args.run_key, [Job.VERIFY_NIGHT])
        run = take_night(warehouse, args.ds, args.run_key)
        report("verify_night", verify_night(warehouse, run))
        if args.full:
            report("verify_full", verify_full(warehouse, run))

    return with_warehouse(args, work, job="verify_night", check=check_night, udfs=args.full)


if __name__ == "__main__":
    sys.exit(main())
