"""Remove a user from every table and export, including their older versions, and prove it."""

from __future__ import annotations

import argparse
import os
import sys

from jobs.command import parse, with_warehouse
from jobs.definitions import FORGET_USER
from pipelines.operate.find_person import find_person
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def run(args: argparse.Namespace) -> int:
    """Forget the user."""

    user = args.user or os.environ[args.user_env]
    shown = "" if args.user else f"(from {args.user_env})"  # a message would go to a scheduler's log

    def check(settings: Settings) -> None:
        find_person(settings, user, shown)

    def work(warehouse: Warehouse) -> None:
        from pipelines.operate.forget import forget_user

        args.output.result("forget_user", forget_user(warehouse, user, args.ds, args.reason))

    return with_warehouse(args, work, job="forget_user", check=check)


def main() -> int:
    """Parse the command line and forget the user."""
    return run(parse(FORGET_USER))


if __name__ == "__main__":
    sys.exit(main())
