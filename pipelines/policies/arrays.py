"""The rules of policies over NumPy arrays, as scoring applies them."""

from __future__ import annotations

import numpy as np

from lime_model.arrays import Bools, Ints
from lime_model.config import DAY_US
from pipelines.policies.rules import ExcludeSeen


def find_excluded(seen: ExcludeSeen, last_us: Ints, night_us: int) -> Bools:
    """Mark the items of a history that a policy excludes on a night.

    Args:
        seen: what the policy excludes.
        last_us: time of each item's last event, microseconds since 1970.
        night_us: when the night begins, microseconds since 1970.
    """
    if isinstance(seen, int):
        return last_us >= night_us - seen * DAY_US
    return np.full(len(last_us), seen == "all")
