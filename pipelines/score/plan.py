"""What a run scores and how: fixed by its first attempt, told before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.incremental import BaseRun, describe_entries, find_base
from pipelines.score.work_units import Plan, plan_full
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.store.leases import Run
from pipelines.store.runs import Manifest, run_once
from pipelines.store.tables import Warehouse


class ScoringPlan(NamedTuple):
    """What a run scores and how, whatever the settings say by now."""

    full: Plan
    units_per_commit: int
    entries: Manifest  # what is kept of each list for later nights; empty: nothing
    base: BaseRun | None  # the run whose entries are taken over
    why: str


def fix_scoring_plan(
    warehouse: Warehouse, run: Run, job: str, inputs: NightInputs, policies: Sequence[Policy]
) -> ScoringPlan:
    """The plan of the run, made by its first attempt.

    A retry that cut the units otherwise could not tell which are staged, and one that started from another
    night would mix two.

    Raises:
        SettingsError: K, policy, model or code are no longer those of the first attempt.
    """

    night = warehouse.settings.night
    each = [describe_entries(warehouse, inputs.model_version, policy) for policy in policies]

    def work() -> Manifest:
        plan = {"buckets": night.buckets, "units_per_commit": night.units_per_commit, "settings": each}
        if run.epoch is None or len(policies) > 1:  # an evaluation: nothing is kept of it
            return {**plan, "why": plan_full(night.buckets).why, "entries": {}, "base": None}
        base, why = find_base(warehouse, run, each[0])
        return {**plan, "why": why, "entries": each[0], "base": base}

    fixed = run_once(warehouse, run, f"{job}_plan", work)
    refuse_changes(run, fixed["settings"], each)
    base = BaseRun(*fixed["base"]) if fixed["base"] else None
    full = plan_full(fixed["buckets"])
    return ScoringPlan(full, fixed["units_per_commit"], fixed["entries"], base, fixed["why"])


def refuse_changes(run: Run, before: Sequence[Manifest], now: Sequence[Manifest]) -> None:
    """Whatever decides lists, by policy, must be what it was when the run began.

    Raises:
        SettingsError: naming what is not.
    """
    changed = {name for a, b in zip(before, now, strict=False) for name in b if a.get(name) != b[name]}
    if len(before) != len(now):
        changed.add("policies")
    changed.discard("buckets")  # the plan's are used
    if changed:
        raise SettingsError(
            f"night {run.ds}, run {run.key!r}: {', '.join(sorted(changed))} changed since its first attempt, "
            "whose lists may be staged; restore what was, or score the night again under a new --run-key"
        )
