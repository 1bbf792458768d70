"""Export a published night to the stores that the settings name: Redis, Valkey or Parquet."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import EXPORT_RECOMMENDATIONS
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Export the night."""

    def work(warehouse: Warehouse) -> None:
        from pipelines.export.export_lists import export_recommendations
        from pipelines.export.exporter import Newer

        newer: Newer = "replace" if args.older else "refuse"
        args.output.result("export_recommendations", export_recommendations(warehouse, args.ds, newer=newer))

    return with_warehouse(args, work, job="export_recommendations")


def main() -> int:
    """Parse the command line and export the night."""
    return run(parse(EXPORT_RECOMMENDATIONS))


if __name__ == "__main__":
    sys.exit(main())
