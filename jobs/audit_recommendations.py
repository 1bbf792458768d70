"""Audit the staged lists: check the invariants, and compare drift, churn and concentration with their limits.

    python jobs/audit_recommendations.py --config conf/local.yaml --ds 2017-12-04
"""

from __future__ import annotations

import sys

from jobs.command import run_job

if __name__ == "__main__":
    sys.exit(run_job("audit_recommendations", __doc__ or ""))
