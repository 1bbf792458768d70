"""Publish the staged and certified lists in one commit.

    python jobs/publish_recommendations.py --config conf/local.yaml --ds 2017-12-04
"""

from __future__ import annotations

import sys

from jobs.command import run_job

if __name__ == "__main__":
    sys.exit(run_job("publish_recommendations", __doc__ or ""))
