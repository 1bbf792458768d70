"""Load drops into the tables events, items and users; bad rows go to events_quarantine.

    python jobs/ingest_events.py --config conf/local.yaml --ds 2017-12-04
    python jobs/ingest_events.py --config conf/local.yaml --from 2017-01-01 --to 2017-12-02

`--ds` is a night, as for every job: the job loads the drop of the day before, which is the last drop that the
night sees, and the drops of earlier days that no job has loaded yet. `--from` and `--to` are the days of the
drops themselves.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_date, parser
from jobs.command import report, with_warehouse
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and load the drops."""
    options = parser("ingest_events", __doc__ or "")
    options.add_argument(
        "--ds",
        type=night_date,
        help="the night; the drop of the day before is loaded, and earlier drops that are missing",
    )
    options.add_argument("--from", dest="first", type=night_date, help="first drop day of a range")
    options.add_argument("--to", dest="last", type=night_date, help="last drop day of a range")
    options.add_argument("--run-key", help="this option is ignored, because loading needs no lease")
    args = options.parse_args()
    whole_range = bool(args.first and args.last)
    if bool(args.ds) == whole_range or bool(args.first) != bool(args.last):
        options.error("give either --ds NIGHT or both --from DAY and --to DAY")
    if whole_range and args.first > args.last:
        options.error(f"--from {args.first} is after --to {args.last}; swap them")

    def work(warehouse: Warehouse) -> None:
        from pipelines.ingest.load_days import ingest_days, ingest_night

        found = (
            ingest_days(warehouse, args.first, args.last) if args.first else ingest_night(warehouse, args.ds)
        )
        report("ingest_events", found)

    return with_warehouse(args, work, job="ingest_events", night=args.ds or args.first)


if __name__ == "__main__":
    sys.exit(main())
