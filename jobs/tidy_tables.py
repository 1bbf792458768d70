"""Compact small files, drop staged rows of old nights, and vacuum: weekly, beside the nights or between them.

    python jobs/tidy_tables.py --config conf/local.yaml --ds 2017-12-04

Keeps what `upkeep` in the settings says, counted from `--ds`, and everything that a pinned night needs.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_date, parser
from jobs.command import report, with_warehouse
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse and tidy."""
    options = parser("tidy_tables", __doc__ or "")
    options.add_argument("--ds", required=True, type=night_date, help="the newest night")
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.operate.upkeep import tidy_tables

        report("tidy_tables", tidy_tables(warehouse, args.ds))

    return with_warehouse(args, work, job="tidy_tables")


if __name__ == "__main__":
    sys.exit(main())
