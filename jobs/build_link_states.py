"""Build the link states and the repeat memory of every user as of the night.

    python jobs/build_link_states.py --config conf/local.yaml --ds 2017-12-04
"""

from __future__ import annotations

import sys

from jobs.command import run_job

if __name__ == "__main__":
    sys.exit(run_job("build_link_states", __doc__ or ""))
