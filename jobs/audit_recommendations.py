"""Audit the staged lists."""

from __future__ import annotations

import sys

from jobs.command import run_job
from jobs.definitions import AUDIT_RECOMMENDATIONS

if __name__ == "__main__":
    sys.exit(run_job(AUDIT_RECOMMENDATIONS))
