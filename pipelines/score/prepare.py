"""All that a night's scoring needs before the first user: its plan, and what every host holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lime_model.bundle import Bundle
from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.incremental import ShippedChanges, ship_night_changes, write_candidates
from pipelines.score.packed_bank import ShippedBank, ship_bank
from pipelines.score.plan import ScoringPlan, fix_scoring_plan
from pipelines.score.workload import Past, count_active_users, estimate_workload
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.store.leases import Run
from pipelines.store.runs import Manifest, need_manifest
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)


class PreparedNight(NamedTuple):
    """The plan, the packed banks by eligibility, what changed since the base, and about how many pairs."""

    plan: ScoringPlan
    banks: dict[str, ShippedBank]
    tonight: ShippedChanges | None
    pairs: int


def prepare_scoring(
    warehouse: Warehouse,
    run: Run,
    job: str,
    inputs: NightInputs,
    bundle: Bundle,
    policies: Sequence[Policy],
) -> PreparedNight:
    """Plan the night, say it, and send what every host needs.

    Raises:
        SettingsError: the policies changed after the bank was built, or what decides lists after the first
            attempt.
        BundleError: more rows of the bank are damaged than `night.max_damaged_share` allows.
    """
    check_policies(need_manifest(warehouse, run, "build_candidate_bank"), policies)
    # Side by side: executors pack the bank, and the driver waits for Delta's log more than it computes.
    aside, wait = ThreadPoolExecutor(1), True
    try:
        shipping = aside.submit(_ship_banks, warehouse, run, bundle, inputs, policies)
        plan = fix_scoring_plan(warehouse, run, job, inputs, policies)
        tonight = None
        if plan.entries:  # of the base that is fixed: a retry would not always find the same one
            write_candidates(warehouse, run, inputs, plan.base)
        if plan.base:
            tonight = ship_night_changes(warehouse, run, plan.base)
            users = need_manifest(warehouse, run, "build_link_states")["users"]
            active = count_active_users(warehouse, run, plan.base.ds)
            past = Past.of(warehouse, plan.base, policies[0])
            work = estimate_workload(users, active, tonight.candidates, tonight.changed, past)
            said, pairs = work.describe(), work.pairs
        else:
            said, pairs = _describe_full(warehouse, run, policies)
        log.info("%s: %s", plan.why, said)
        return PreparedNight(plan, shipping.result(), tonight, pairs)
    except SystemExit:
        wait = False  # a scheduler's SIGTERM: what is being packed ends with Spark's session
        raise
    finally:
        aside.shutdown(wait=wait, cancel_futures=True)


def check_policies(bank: Manifest, policies: Sequence[Policy]) -> None:
    """The bank's eligibility bits must be those of the policies, in their order.

    Raises:
        SettingsError: the policies changed after the bank was built.
    """
    wanted = [policy.eligible for policy in policies]
    if bank["eligible_where"] != wanted:
        raise SettingsError(
            f"the bank was built for eligibility {bank['eligible_where']} and the policies now say {wanted}; "
            "restore them or build the night again under a new --run-key"
        )


def _ship_banks(
    warehouse: Warehouse, run: Run, bundle: Bundle, inputs: NightInputs, policies: Sequence[Policy]
) -> dict[str, ShippedBank]:
    """One for each eligibility: one dense pass serves all policies over the same candidates."""
    bits: dict[str, int] = {}
    for bit, policy in enumerate(policies):
        bits.setdefault(policy.eligible, bit)
    return {eligible: ship_bank(warehouse, run, bundle, inputs, bit) for eligible, bit in bits.items()}


def _describe_full(warehouse: Warehouse, run: Run, policies: Sequence[Policy]) -> tuple[str, int]:
    """A full night's work in a line, and how many pairs it has."""
    users = need_manifest(warehouse, run, "build_link_states")["users"]
    eligible = need_manifest(warehouse, run, "build_candidate_bank")["eligible"]
    passes = {policy.eligible: int(eligible[policy.name]) for policy in policies}
    pairs = users * sum(passes.values())
    each = " and ".join(f"{size:,}" for size in passes.values())
    return f"{users:,} users meet {each} candidates: {pairs:,} pairs", pairs
