"""Score every user against every eligible candidate, and write the lists to staging."""

from __future__ import annotations

import sys

from jobs.command import run_job
from jobs.definitions import SCORE_CANDIDATES

if __name__ == "__main__":
    sys.exit(run_job(SCORE_CANDIDATES))
