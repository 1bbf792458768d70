"""The options of a scoring task: model version, night, list length, policies and backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.policies.rules import ExcludeSeen


@dataclass(frozen=True)
class ScoreTask:
    """What to score and how; small and picklable.

    Args:
        model_version: version of the bundle.
        night: the day (YYYY-MM-DD).
        k: list length.
        exclude_seen: for each policy, which items of a user's history it excludes.
        backend: name of the backend.
        device: device of the backend.
        strict: fail at a damaged row; otherwise its user gets an empty list and the reason.
        run_id: the run that scores; it is the anchor of users who are scored in full.
        entries: how many entries of each list to keep for later nights; 0 keeps none. A task that keeps
            entries has one policy.
        base_ds: the day of the night whose entries the users come with.
    """

    model_version: str
    night: str
    k: int
    exclude_seen: Mapping[str, ExcludeSeen]
    backend: str
    device: str
    strict: bool = True
    run_id: str = ""
    entries: int = 0
    base_ds: str = ""


def day_start_us(ds: str) -> int:
    """Return when a day begins, in microseconds since 1970."""
    return int(np.datetime64(ds, "us").astype(np.int64))
