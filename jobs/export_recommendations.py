"""Export a published night to the stores that the settings name: Redis, Valkey or Parquet.

    python jobs/export_recommendations.py --config conf/local.yaml --ds 2017-12-04 [--older]

Readers see the earlier night until all lists have arrived, and then this one. A repeated or killed export
continues where it stopped.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser
from jobs.command import report, with_warehouse
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and export the night."""
    options = night_options(parser("export_recommendations", __doc__ or ""))
    options.add_argument(
        "--older", action="store_true", help="export this night even if a newer one is served"
    )
    args = options.parse_args()

    def work(warehouse: Warehouse) -> None:
        from pipelines.export.export_lists import export_recommendations
        from pipelines.export.exporter import Newer

        newer: Newer = "replace" if args.older else "refuse"
        report("export_recommendations", export_recommendations(warehouse, args.ds, newer=newer))

    return with_warehouse(args, work, job="export_recommendations")


if __name__ == "__main__":
    sys.exit(main())
