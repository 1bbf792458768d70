"""Certify the staged lists of sampled users against the unfolded model."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, take_night, with_warehouse
from jobs.definitions import VERIFY_NIGHT
from pipelines.settings.checks import check_night
from pipelines.steps import Job
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Certify the lists."""

    def work(warehouse: Warehouse) -> None:
        from pipelines.night_checks import check_steps
        from pipelines.publish.full_comparison import verify_full
        from pipelines.publish.verify_night import verify_night

        check_steps(warehouse, args.ds, args.run_key, [Job.VERIFY_NIGHT])
        run = take_night(warehouse, args.ds, args.run_key)
        args.output.result("verify_night", verify_night(warehouse, run))
        if args.full:
            args.output.result("verify_full", verify_full(warehouse, run))

    return with_warehouse(args, work, job="verify_night", check=check_night, udfs=args.full)


def main() -> int:
    """Parse the command line and certify the lists."""
    return run(parse(VERIFY_NIGHT))


if __name__ == "__main__":
    sys.exit(main())
