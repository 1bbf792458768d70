"""Write the page of a night, published or not, into `reports/` of the warehouse.

    python jobs/report_night.py --config conf/local.yaml --ds 2017-12-04

The job reads the tables without Spark and prints the path of the page.
"""

from __future__ import annotations

import json
import sys

from jobs.arguments import night_date, parser
from jobs.endings import Ending
from jobs.logs import start_logs
from pipelines.report.page import write_page
from pipelines.settings.settings import load_settings


def main() -> int:
    """Parse the command line, and write the page of the night."""
    options = parser("report_night", __doc__ or "")
    options.add_argument("--ds", required=True, type=night_date, help="the night, published or not")
    args = options.parse_args()
    start_logs(job="report_night", night=args.ds)
    with Ending(verbose=args.verbose) as ending:
        page = write_page(load_settings(args.config), args.ds)
        print(f"report_night {json.dumps({'page': str(page)})}", flush=True)
    return ending.code


if __name__ == "__main__":
    sys.exit(main())
