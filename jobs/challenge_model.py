"""Train a model anew, compare it with its champion and the baselines, and promote it only if it is better."""

from __future__ import annotations

import argparse
import sys

from structlog.contextvars import bind_contextvars

from jobs.command import parse, with_warehouse
from jobs.definitions import CHALLENGE_MODEL
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Run the challenge."""

    def check(settings: Settings) -> None:
        check_models(settings, [args.model or settings.night.model])

    def work(warehouse: Warehouse) -> None:
        from pipelines.learn.challenge import challenge
        from pipelines.night_checks import check_eligible

        check_eligible(warehouse, args.ds, warehouse.settings.evaluate_policies)
        model = args.model or warehouse.settings.night.model
        bind_contextvars(run=f"{args.ds}.challenge-{model}")  # the id of its row in `runs`
        args.output.result("challenge_model", challenge(warehouse, args.ds, model))

    return with_warehouse(args, work, job="challenge_model", check=check, udfs=True)


def main() -> int:
    """Parse the command line and run the challenge."""
    return run(parse(CHALLENGE_MODEL))


if __name__ == "__main__":
    sys.exit(main())
