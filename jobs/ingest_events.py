"""Load drops into the tables events, items and users; bad rows go to events_quarantine."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import INGEST_EVENTS
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Load the drops."""

    def work(warehouse: Warehouse) -> None:
        from pipelines.ingest.load_days import ingest_days, ingest_night

        found = (
            ingest_days(warehouse, args.first, args.last) if args.first else ingest_night(warehouse, args.ds)
        )
        args.output.result("ingest_events", found)

    return with_warehouse(args, work, job="ingest_events", night=args.ds or args.first)


def main() -> int:
    """Parse the command line and load the drops."""
    return run(parse(INGEST_EVENTS))


if __name__ == "__main__":
    sys.exit(main())
