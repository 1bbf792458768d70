"""Prepare a night's scoring: make its plan, and send every host what it needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lime_model.bundle import Bundle
from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.candidate_history import write_candidates
from pipelines.score.incremental import ShippedChanges, ship_night_changes
from pipelines.score.packed_bank import ShippedBank, ship_bank
from pipelines.score.plan import fix_scoring_plan
from pipelines.score.workload import PastNight, count_active_users, estimate_workload
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.store.leases import Run
from pipelines.store.manifests import BankManifest, BaseRun, ScoringPlanManifest, StatesManifest
from pipelines.store.runs import need_manifest
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)


class PreparedNight(NamedTuple):
    """What was planned and sent.

    `banks` has a bank for each eligibility rule, `changes` is None for a full night, and `pairs` is an
    estimate of the pairs that will be scored.
    """

    plan: ScoringPlanManifest
    banks: dict[str, ShippedBank]
    changes: ShippedChanges | None
    pairs: int

    @property
    def left_out(self) -> dict[object, str]:
        """The damaged items, with their reasons."""
        return {item: reason for bank in self.banks.values() for item, reason in bank.damaged.items()}

    def destroy(self) -> None:
        """Free the broadcasts; the unpacked files remain until the application ends."""
        for bank in self.banks.values():
            bank.files.destroy()
        if self.changes:
            self.changes.files.destroy()


class EstimatedWork(NamedTuple):
    """A night's work as one line of text, and an estimate of its pairs."""

    text: str
    pairs: int


def prepare_scoring(
    warehouse: Warehouse, run: Run, inputs: NightInputs, bundle: Bundle, policies: Sequence[Policy]
) -> PreparedNight:
    """Plan the night, log the plan, and send what every host needs.

    Args:
        warehouse: holds the tables.
        run: the run to score.
        inputs: what the run reads.
        bundle: the bundle that scores.
        policies: the policies whose lists are wanted.

    Raises:
        SettingsError: the policies changed after the bank was built, or something that decides lists changed
            after the first attempt.
        BundleError: more rows of the bank are damaged than `night.max_damaged_share` allows.
    """
    check_policies(need_manifest(warehouse, run, BankManifest), policies)
    # The bank ships while the plan is made: executors pack it, and the driver mostly waits for Delta's log.
    aside, wait = ThreadPoolExecutor(1), True
    try:
        shipping = aside.submit(_ship_banks, warehouse, run, bundle, inputs, policies)
        plan = fix_scoring_plan(warehouse, run, inputs, policies)
        changes = None
        if plan.entries:  # the base is the plan's, as a retry would not always find the same one
            write_candidates(warehouse, run, inputs, plan.base)
        if plan.base:
            changes = ship_night_changes(warehouse, run, plan.base)
            work = _estimate(warehouse, run, plan.base, policies[0], changes)
        else:
            work = _estimate_full(warehouse, run, policies)
        log.info("%s: %s", plan.why, work.text, extra={"plan": True})  # what shows progress keeps this line
        return PreparedNight(plan, shipping.result(), changes, work.pairs)
    except SystemExit:
        wait = False  # after a scheduler's SIGTERM, packing ends with Spark's session
        raise
    finally:
        aside.shutdown(wait=wait, cancel_futures=True)


def check_policies(bank: BankManifest, policies: Sequence[Policy]) -> None:
    """Check that the bank was built for the rules of these policies, in this order.

    Raises:
        SettingsError: the policies changed after the bank was built.
    """
    wanted = [policy.eligible for policy in policies]
    if bank.eligible_where != wanted:
        raise SettingsError(
            f"the bank was built for eligibility {bank.eligible_where} and the policies now say {wanted}; "
            "restore them or build the night again under a new --run-key"
        )


def _ship_banks(
    warehouse: Warehouse, run: Run, bundle: Bundle, inputs: NightInputs, policies: Sequence[Policy]
) -> dict[str, ShippedBank]:
    """Ship one bank for each eligibility rule; one pass serves all policies with the same rule."""
    bits: dict[str, int] = {}
    for bit, policy in enumerate(policies):
        bits.setdefault(policy.eligible, bit)
    return {eligible: ship_bank(warehouse, run, bundle, inputs, bit) for eligible, bit in bits.items()}


def _estimate(
    warehouse: Warehouse, run: Run, base: BaseRun, policy: Policy, changes: ShippedChanges
) -> EstimatedWork:
    """Estimate the work of an incremental night."""
    users = need_manifest(warehouse, run, StatesManifest).users
    active = count_active_users(warehouse, run, base.ds)
    past = PastNight.of(warehouse, base, policy)
    work = estimate_workload(users, active, changes.candidates, changes.changed, past)
    return EstimatedWork(work.describe(), work.pairs)


def _estimate_full(warehouse: Warehouse, run: Run, policies: Sequence[Policy]) -> EstimatedWork:
    """Compute the work of a full night."""
    users = need_manifest(warehouse, run, StatesManifest).users
    eligible = need_manifest(warehouse, run, BankManifest).eligible
    passes = {policy.eligible: eligible[policy.name] for policy in policies}
    pairs = users * sum(passes.values())
    each = " and ".join(f"{size:,}" for size in passes.values())
    return EstimatedWork(f"{users:,} users meet {each} candidates: {pairs:,} pairs", pairs)
