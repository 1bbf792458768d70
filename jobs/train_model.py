"""Train models on all events before a cut-off and write their bundles."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import TRAIN_MODEL
from pipelines.settings.checks import check_models
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Train the models."""

    def check(settings: Settings) -> None:
        check_models(settings, args.model or [])

    def work(warehouse: Warehouse) -> None:
        from pipelines.learn.train import train_models

        names = args.model or [model.name for model in warehouse.settings.models]
        args.output.result("train_model", train_models(warehouse, args.ds, names))

    return with_warehouse(args, work, job="train_model", check=check)


def main() -> int:
    """Parse the command line and train the models."""
    return run(parse(TRAIN_MODEL))


if __name__ == "__main__":
    sys.exit(main())
