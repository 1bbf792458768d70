"""Export a published night to where it is served from: Redis or Valkey, Parquet, as the settings say.

    python jobs/export_recommendations.py --config conf/local.yaml --ds 2017-12-04 [--older]

Readers see the night before until all lists are there, and then this one. A repeated or killed export goes
on where it was.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser
from jobs.command import report, with_warehouse
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse and export."""
    options = night_options(parser("export_recommendations", __doc__ or ""))
    options.add_argument("--older", action="store_true", help="even if a newer night is served")
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.export.export_lists import export_recommendations
        from pipelines.export.exporter import Newer

        newer: Newer = "replace" if args.older else "refuse"
        report("export_recommendations", export_recommendations(warehouse, args.ds, newer=newer))

    return with_warehouse(args, work, job="export_recommendations")


if __name__ == "__main__":
    sys.exit(main())
