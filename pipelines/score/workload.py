"""Estimate how many pairs a night scores, before it starts.

An incremental night scores every candidate for the users who changed since the run that it starts from. For
the other users it scores the candidates that changed, and those whose bias rose by more than the slack of the
user's list. Their number is known only when each user is scored, so the estimate takes that of the base run.
"""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import functions as F

from lime_model.scoring.incremental.night_changes import too_many_changed
from pipelines.schemas import DS, USER_ID, VALID_FROM, VALID_TO
from pipelines.score.base_night import describe_entries, find_base
from pipelines.settings.night import Policy
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.manifests import BankManifest, BaseRun, ScoreManifest, StatesManifest
from pipelines.store.runs import find_manifest
from pipelines.store.tables import Warehouse


class Workload(NamedTuple):
    """The pairs of a night.

    Of the `users`, `in_full` are scored with all `candidates`. The lists of the others are taken over: each
    of these is scored with about `each` candidates, those that `changed` and those whose bias rose.
    """

    users: int
    in_full: int
    candidates: int
    changed: int
    each: float

    @property
    def taken_over(self) -> int:
        """The number of users whose lists are taken over."""
        return self.users - self.in_full

    @property
    def pairs(self) -> int:
        """An estimate of the pairs that are scored."""
        return self.in_full * self.candidates + round(self.taken_over * self.each)

    def describe(self) -> str:
        """Describe the work in one line, with the pairs that are avoided."""
        all_pairs = self.users * self.candidates
        if too_many_changed(self.changed, self.candidates):
            return (
                f"{self.changed:,} of {self.candidates:,} candidates changed, so all {self.users:,} users "
                f"meet all of them: {self.pairs:,} pairs"
            )
        return (
            f"about {self.in_full:,} of {self.users:,} users changed, or have no room left in their lists, "
            f"and meet all {self.candidates:,} candidates; the others meet the {self.changed:,} that changed "
            f"and those whose bias rose: about {self.pairs:,} pairs, {all_pairs - self.pairs:,} avoided"
        )


class PastNight(NamedTuple):
    """What the base run of a night suggests about the night's work.

    `renewed` is the share of unchanged users who were scored in full all the same. `moved` is the mean number
    of candidates that a user whose list was taken over was scored with because their bias had risen.
    """

    renewed: float = 0.0
    moved: float = 0.0

    @classmethod
    def of(cls, warehouse: Warehouse, base: BaseRun, policy: Policy) -> PastNight:
        """Read the numbers from the manifests of the base run; both are 0 if it was a full night.

        Args:
            warehouse: holds the manifests.
            base: the run that the night starts from.
            policy: the policy whose lists are taken over.
        """
        scored = find_manifest(warehouse, base.run_id, ScoreManifest)
        states = find_manifest(warehouse, base.run_id, StatesManifest)
        report = scored.policies.get(policy.name) if scored else None
        if scored is None or report is None or not (taken := report.users_taken_over):
            return cls()
        unchanged = max(states.kept if states else 0, taken)
        changed = scored.entries.changed if scored.entries else 0
        return cls(1 - taken / unchanged, max(0.0, report.pairs_taken_over / taken - changed))


def estimate_workload(users: int, active: int, candidates: int, changed: int, past: PastNight) -> Workload:
    """Estimate the work of an incremental night.

    Args:
        users: the number of users of the night.
        active: the number of users who changed since the base run.
        candidates: the number of candidates of the night.
        changed: the number of candidates that changed; they are scored for every user.
        past: the numbers of the base run.
    """
    if too_many_changed(changed, candidates):
        return Workload(users, users, candidates, changed, 0.0)
    in_full = min(users, active + round(past.renewed * (users - active)))
    return Workload(users, in_full, candidates, changed, min(changed + past.moved, candidates))


class ExpectedWork(NamedTuple):
    """The work of a night, and the reason: the run that it will start from, or why it is a full night."""

    work: Workload
    reason: str


def expect_workload(
    warehouse: Warehouse, run: Run, model_version: str, users: int, candidates: int
) -> ExpectedWork:
    """Estimate the work of a night under the published policy from the tables, before it is scored.

    Args:
        warehouse: holds the tables.
        run: the run of the night.
        model_version: the version of the bundle that scores.
        users: the number of users of the night.
        candidates: the number of candidates of the night.
    """
    policy = warehouse.settings.night.policy
    base, why = find_base(warehouse, run, describe_entries(warehouse, model_version, policy))
    if base is None:
        return ExpectedWork(Workload(users, users, candidates, 0, 0.0), why)
    changed = count_changed_items(warehouse, run, base.ds)
    active = count_active_users(warehouse, run, base.ds)
    past = PastNight.of(warehouse, base, policy)
    return ExpectedWork(estimate_workload(users, active, candidates, changed, past), why)


def count_changed_items(warehouse: Warehouse, run: Run, since: str) -> int:
    """Count the items that changed since a night, from the run's build or from the starts of item versions.

    Args:
        warehouse: holds items and manifests.
        run: the run of the night that is estimated.
        since: the date of the earlier night.
    """
    if bank := find_manifest(warehouse, run.run_id, BankManifest):
        return bank.encoded if bank.changed is None else bank.changed
    if not warehouse.exists("items"):
        return 0
    day = F.date_sub(F.lit(run.ds).cast("date"), 1)
    fresh = (F.col(VALID_FROM) >= F.lit(since).cast("date")) & (F.col(VALID_FROM) <= day)
    current = F.col(VALID_TO).isNull() | (F.col(VALID_TO) > day)
    return int(warehouse.read("items").where(fresh & current).count())


def count_active_users(warehouse: Warehouse, run: Run, since: str) -> int:
    """Count the users whose link states changed since a night, from the run's build or from new events.

    Args:
        warehouse: holds events and manifests.
        run: the run of the night that is estimated.
        since: the date of the earlier night.
    """
    if states := find_manifest(warehouse, run.run_id, StatesManifest):
        return states.users - states.kept
    fresh = read_events(warehouse, run.ds).where(F.col(DS) >= F.lit(since).cast("date"))
    return int(fresh.select(USER_ID).distinct().count())
