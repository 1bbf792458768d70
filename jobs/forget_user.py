"""Remove a user from every table and export, including their older versions, and prove it.

    python jobs/forget_user.py --config conf/local.yaml --ds 2017-12-04 --user 1234 --reason "request 17"

Run this job while no night runs. Afterwards neither time travel nor a rollback can reach an earlier version.
Remove the user from the source first: the job does not change drops, and a drop that is ingested again brings
the user back.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser, words
from jobs.command import report, with_warehouse
from pipelines.operate.find_person import find_person
from pipelines.settings.settings import Settings
from pipelines.store.tables import Warehouse


def main() -> int:
    """Parse the command line and forget the user."""
    options = night_options(parser("forget_user", __doc__ or ""))
    options.add_argument("--user", required=True, help="the user id, in any spelling that ingest reads")
    options.add_argument(
        "--reason",
        required=True,
        type=words,
        help="the reason, which the manifest keeps; it does not keep the id",
    )
    args = options.parse_args()

    def check(settings: Settings) -> None:
        find_person(settings, args.user)

    def work(warehouse: Warehouse) -> None:
        from pipelines.operate.forget import forget_user

        report("forget_user", forget_user(warehouse, args.user, args.ds, args.reason))

    return with_warehouse(args, work, job="forget_user", check=check)


if __name__ == "__main__":
    sys.exit(main())
