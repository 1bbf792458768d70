"""Spread a disproof to the runs that were built on a disproved run. This module needs no Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipelines.store.manifests import ScoringPlanManifest


def add_descendants(disproved: Iterable[str], plans: Mapping[str, ScoringPlanManifest]) -> frozenset[str]:
    """Return the disproved runs and all runs that were built on them.

    An error of a run may be in the lists that later runs took over from it.

    Args:
        disproved: the runs whose lists a full night has disproved.
        plans: the plan of each run, which names the run that it was built on.
    """
    false = set(disproved)
    bases = {run_id: plan.base.run_id for run_id, plan in plans.items() if plan.base}
    for run_id in sorted(bases):  # by night, so a base comes before the runs that were built on it
        if bases[run_id] in false:
            false.add(run_id)
    return frozenset(false)
