"""Take back a published night, or return to an earlier bundle of a model."""

from __future__ import annotations

import argparse
import sys
import uuid

from jobs.command import parse, take_night, with_warehouse
from jobs.definitions import ROLL_BACK
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Roll back the night or the model."""

    def check(settings: Settings) -> None:
        if args.model:
            check_models(settings, [args.model])

    def work(warehouse: Warehouse) -> None:
        from pipelines.models.champions import roll_back_model
        from pipelines.operate.rollback import plan_rollback, roll_back_night
        from pipelines.store.leases import find_run

        if args.model:
            version = roll_back_model(warehouse, args.model, args.ds, args.reason, args.to)
            args.output.result(
                "roll_back", {"model": args.model, "model_version": version, "valid_from": args.ds}
            )
        else:
            key = args.run_key or f"roll-back-{uuid.uuid4().hex[:8]}"
            # A refused rollback must not take the night from a run that is at work.
            if find_run(warehouse, args.ds, key).epoch is None:
                plan_rollback(warehouse, args.ds, args.to, expected=args.expected)
            mine = take_night(warehouse, args.ds, key)
            done = roll_back_night(warehouse, mine, args.reason, args.to, expected=args.expected)
            args.output.result("roll_back", done)

    return with_warehouse(args, work, job="roll_back", check=check)


def main() -> int:
    """Parse the command line and roll back."""
    return run(parse(ROLL_BACK))


if __name__ == "__main__":
    sys.exit(main())
