"""Pin a published night, so that upkeep keeps it and everything it was computed from, or release the pin."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import PIN_NIGHT
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Pin or release the night."""

    def work(warehouse: Warehouse) -> None:
        from pipelines.operate.pins import pin_night, release_night

        if args.release:
            args.output.result("pin_night", release_night(warehouse, args.ds, args.reason)._asdict())
        else:
            args.output.result("pin_night", pin_night(warehouse, args.ds, args.reason))

    return with_warehouse(args, work, job="pin_night")


def main() -> int:
    """Parse the command line, and pin or release the night."""
    return run(parse(PIN_NIGHT))


if __name__ == "__main__":
    sys.exit(main())
