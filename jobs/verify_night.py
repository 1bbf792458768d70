"""Certify the staged lists of sampled users against the unfolded model.

python jobs/verify_night.py --config conf/local.yaml --ds 2017-12-04
"""

from __future__ import annotations

import sys

from jobs.command import run_steps

if __name__ == "__main__":
    sys.exit(run_steps(["verify_night"], __doc__ or ""))
