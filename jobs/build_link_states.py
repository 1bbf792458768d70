"""Build the link states and the repeat memory of every user as of the night."""

from __future__ import annotations

import sys

from jobs.command import run_job
from jobs.definitions import BUILD_LINK_STATES

if __name__ == "__main__":
    sys.exit(run_job(BUILD_LINK_STATES))
