"""Write the page of a night, published or not, into `reports/` of the warehouse."""

from __future__ import annotations

import argparse
import sys
import time

from jobs.definitions import REPORT_NIGHT
from jobs.endings import Ending
from jobs.logs import start_logs
from pipelines.settings.settings import load_settings


def run(args: argparse.Namespace) -> int:
    """Write the page of the night, without Spark."""
    start_logs(job="report_night", night=args.ds)
    started = time.monotonic()
    with Ending(verbose=args.verbose) as ending:
        from pipelines.report.page import write_page

        args.output.result("report_night", {"page": str(write_page(load_settings(args.config), args.ds))})
        args.output.finish(f"report_night {args.ds}", time.monotonic() - started)
    if ending.code:
        args.output.fail(ending.code, ending.lines)
    return ending.code


def main() -> int:
    """Parse the command line, and write the page of the night."""
    from jobs.command import parse  # it needs Spark, and `lime report` does not

    return run(parse(REPORT_NIGHT))


if __name__ == "__main__":
    sys.exit(main())
