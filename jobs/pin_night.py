"""Pin a published night, so that upkeep keeps it and everything it was computed from, or release the pin.

    python jobs/pin_night.py --config conf/local.yaml --ds 2017-12-04 --reason "audit of the fourth quarter"
    python jobs/pin_night.py --config conf/local.yaml --ds 2017-12-04 --reason "audit is over" --release
"""

from __future__ import annotations

import sys

from jobs.arguments import night_date, parser, words
from jobs.command import report, with_warehouse
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line, and pin or release the night."""
    options = parser("pin_night", __doc__ or "")
    options.add_argument("--ds", required=True, type=night_date, help="a published night")
    options.add_argument("--reason", required=True, type=words, help="the reason, which is kept with the pin")
    options.add_argument("--release", action="store_true", help="end the pins of the night")
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.operate.pins import pin_night, release_night

        if args.release:
            report("pin_night", release_night(warehouse, args.ds, args.reason)._asdict())
        else:
            report("pin_night", pin_night(warehouse, args.ds, args.reason))

    return with_warehouse(args, work, job="pin_night")


if __name__ == "__main__":
    sys.exit(main())
