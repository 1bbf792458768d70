"""Run several steps of a night in one Spark application."""

from __future__ import annotations

import argparse
import sys

from jobs.command import parse, run_steps
from jobs.definitions import RUN_STEPS


def run(args: argparse.Namespace) -> int:
    """Run the steps in the given order."""
    return run_steps(args, args.steps, job=args.steps[0] if len(args.steps) == 1 else "run_steps")


def main() -> int:
    """Parse the command line, and run the steps in the given order."""
    return run(parse(RUN_STEPS))


if __name__ == "__main__":
    sys.exit(main())
