"""Build the night's candidate bank and item bias.

    python jobs/build_candidate_bank.py --config conf/local.yaml --ds 2017-12-04
"""

from __future__ import annotations

import sys

from jobs.command import run_job

if __name__ == "__main__":
    sys.exit(run_job("build_candidate_bank", __doc__ or ""))
