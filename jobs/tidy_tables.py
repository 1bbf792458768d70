"""Compact small files, drop the staged rows of old nights, and vacuum."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import TIDY_TABLES
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Tidy the tables."""

    def work(warehouse: Warehouse) -> None:
        from pipelines.operate.upkeep import tidy_tables

        args.output.result("tidy_tables", tidy_tables(warehouse, args.ds))

    return with_warehouse(args, work, job="tidy_tables")


def main() -> int:
    """Parse the command line and tidy the tables."""
    return run(parse(TIDY_TABLES))


if __name__ == "__main__":
    sys.exit(main())
