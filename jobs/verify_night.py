"""Certify the staged lists of sampled users against the unfolded model.

    python jobs/verify_night.py --config conf/local.yaml --ds 2017-12-04 [--run-key KEY] [--full]

`--full` also scores the night again, all users against all candidates, and compares every list: what an
incremental night spared must not show.
"""

from __future__ import annotations

import sys

from jobs.command import night_options, parser, report, take_night, with_warehouse
from pipelines.tables import Warehouse


def main() -> int:
    """Parse and certify."""
    options = night_options(parser("verify_night", __doc__ or ""))
    options.add_argument("--full", action="store_true", help="compare every list with a full night's")
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.verify import verify_night
        from pipelines.verify_full import verify_full

        run = take_night(warehouse, args.ds, args.run_key)
        report("verify_night", verify_night(warehouse, run))
        if args.full:
            report("verify_full", verify_full(warehouse, run))

    return with_warehouse(args.config, work, job="verify_night", night=args.ds, udfs=args.full)


if __name__ == "__main__":
    sys.exit(main())
