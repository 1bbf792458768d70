"""Run `lime status`: show the last nights of the warehouse, what is wrong with them, and the remedy."""

from __future__ import annotations

import argparse
import json

from jobs.lime.console import open_console
from jobs.lime.output import print_json
from pipelines.report.status import read_status, show_status
from pipelines.settings.settings import load_settings


def run(args: argparse.Namespace) -> int:
    """Read the tables without Spark and print what they say; return 0, also if something is wrong there."""
    status = read_status(load_settings(args.config))
    if args.json:
        print_json({"command": "status", "exit_code": 0, **json.loads(status.to_json())})
    else:
        open_console().print(show_status(status))
    return 0
