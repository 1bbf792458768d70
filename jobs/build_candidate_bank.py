"""Build the night's candidate bank and item bias."""

from __future__ import annotations

import sys

from jobs.command import run_job
from jobs.definitions import BUILD_CANDIDATE_BANK

if __name__ == "__main__":
    sys.exit(run_job(BUILD_CANDIDATE_BANK))
