"""Publish the staged and certified lists in one commit."""

from __future__ import annotations

import sys

from jobs.command import run_job
from jobs.definitions import PUBLISH_RECOMMENDATIONS

if __name__ == "__main__":
    sys.exit(run_job(PUBLISH_RECOMMENDATIONS))
