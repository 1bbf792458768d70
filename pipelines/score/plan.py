"""Plan what a run scores and how; its first attempt fixes the plan before it scores.

A night is a list of work units: each is a bucket of users with all eligible candidates. A retry scores only
the units that are not staged yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.base_night import describe_entries, find_base
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.store.leases import Run
from pipelines.store.manifests import EntryRules, ScoringPlanManifest
from pipelines.store.runs import run_once
from pipelines.store.tables import Warehouse

FULL_NIGHT = "full night: every user, every candidate"


def fix_scoring_plan(
    warehouse: Warehouse, run: Run, inputs: NightInputs, policies: Sequence[Policy]
) -> ScoringPlanManifest:
    """Make the plan of the run, or find the one that its first attempt made.

    A retry that grouped the units in another way could not find out which of them are staged. One that
    started from another night would mix lists of two bases.

    Args:
        warehouse: holds the runs.
        run: the run to score.
        inputs: what the run reads.
        policies: the policies whose lists are scored.

    Raises:
        SettingsError: K, policy, model or code changed after the first attempt.
    """
    night = warehouse.settings.night
    rules = [describe_entries(warehouse, inputs.model_version, policy) for policy in policies]

    def work() -> ScoringPlanManifest:
        plan = ScoringPlanManifest(
            buckets=night.buckets, units_per_commit=night.units_per_commit, settings=rules, why=FULL_NIGHT
        )
        if run.epoch is None or len(policies) > 1:  # an evaluation keeps nothing for later nights
            return plan
        choice = find_base(warehouse, run, rules[0])
        return plan.model_copy(update={"why": choice.reason, "entries": rules[0], "base": choice.base})

    plan = run_once(warehouse, run, ScoringPlanManifest, work)
    refuse_changes(run, plan.settings, rules)
    return plan


def refuse_changes(run: Run, before: Sequence[EntryRules], now: Sequence[EntryRules]) -> None:
    """Refuse to go on when anything that decides lists has changed since the run began.

    Args:
        run: the run that is scored.
        before: the rules of each policy when the first attempt began.
        now: the rules of each policy now, in the same order.

    Raises:
        SettingsError: something did; the message names it.
    """
    changed: set[str] = set()
    for old, new in zip(before, now, strict=False):
        was = old.model_dump(mode="json")
        changed |= {name for name, value in new.model_dump(mode="json").items() if was[name] != value}
    if len(before) != len(now):
        changed.add("policies")
    changed.discard("buckets")  # the buckets of the plan are used, whatever the settings say now
    if changed:
        raise SettingsError(
            f"night {run.ds}, run {run.key!r}: {', '.join(sorted(changed))} changed since its first attempt, "
            "whose lists may be staged; restore what was, or score the night again under a new --run-key"
        )


def group_buckets(plan: ScoringPlanManifest) -> list[list[int]]:
    """Group the buckets that share a commit; the groups never depend on what is staged already."""
    size = plan.units_per_commit
    return [list(range(start, min(start + size, plan.buckets))) for start in range(0, plan.buckets, size)]


def find_missing(groups: Iterable[Sequence[int]], staged: Iterable[int]) -> list[int]:
    """Find the indices of the groups without a staged bucket; one commit stages a complete group."""
    done = set(staged)
    return [i for i, group in enumerate(groups) if not done & set(group)]
