"""Score every user against every eligible candidate, and write the lists to staging.

    python jobs/score_candidates.py --config conf/local.yaml --ds 2017-12-04
"""

from __future__ import annotations

import sys

from jobs.command import run_job

if __name__ == "__main__":
    sys.exit(run_job("score_candidates", __doc__ or ""))
