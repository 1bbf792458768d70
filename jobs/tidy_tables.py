"""Compact small files, drop the staged rows of old nights, and vacuum.

    python jobs/tidy_tables.py --config conf/local.yaml --ds 2017-12-04

The job runs once a week, at the same time as a night or between two nights. It keeps the nights that `upkeep`
in the settings asks for, counted from `--ds`, and everything that a pinned night needs.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_date, parser
from jobs.command import report, with_warehouse
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and tidy the tables."""
    options = parser("tidy_tables", __doc__ or "")
    options.add_argument("--ds", required=True, type=night_date, help="the newest night")
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.operate.upkeep import tidy_tables

        report("tidy_tables", tidy_tables(warehouse, args.ds))

    return with_warehouse(args, work, job="tidy_tables")


if __name__ == "__main__":
    sys.exit(main())
