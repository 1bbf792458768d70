"""Run several steps of a night in one Spark application.

    python jobs/run_steps.py --config conf/local.yaml --ds 2017-12-04 \\
        --steps build_candidate_bank build_link_states

Each step does what the job of its name does; sharing a session spares its start.
"""

from __future__ import annotations

import argparse
import sys

from jobs.command import run_steps
from pipelines.plan import STEP_NAMES


def main() -> int:
    """Take `--steps` off the command line and run them in order."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--steps", nargs="+", choices=STEP_NAMES, required=True)
    chosen, rest = options.parse_known_args()
    return run_steps(chosen.steps, __doc__ or "", rest)


if __name__ == "__main__":
    sys.exit(main())
