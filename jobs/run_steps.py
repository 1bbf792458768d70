"""Run several steps of a night in one Spark application.

    python jobs/run_steps.py --config conf/local.yaml --ds 2017-12-04 \\
        --steps build_candidate_bank build_link_states

Each step does the same as the job of its name; the shared application saves the start of several sessions.
"""

from __future__ import annotations

import sys

from jobs.arguments import night_options, parser
from jobs.command import run_steps
from pipelines.steps import NIGHT_STEPS


def main() -> int:
    """Parse the command line, and run the steps in the given order."""
    options = night_options(parser("run_steps", __doc__ or ""))
    options.add_argument(
        "--steps",
        nargs="+",
        choices=NIGHT_STEPS,
        required=True,
        help="the steps, in the order in which they run",
    )
    args = options.parse_args()
    return run_steps(args, args.steps, job=args.steps[0] if len(args.steps) == 1 else "run_steps")


if __name__ == "__main__":
    sys.exit(main())
