"""How many pairs a night scores, told before it starts.

An incremental night scores every candidate for the users who changed since the night that it starts from.
The others meet the candidates that changed, and those whose bias rose by more than their list has room for;
how many these are is known only as each user is scored, so it is taken as it was in the night before.
"""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import functions as F

from lime_model.scoring.incremental.night_changes import too_many_changed
from pipelines.score.incremental import BaseRun, describe_entries, find_base
from pipelines.settings.night import Policy
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.runs import find_manifest
from pipelines.store.schemas import DS, USER_ID, VALID_FROM, VALID_TO
from pipelines.store.tables import Warehouse


class Workload(NamedTuple):
    """Pairs of a night, and whose.

    `in_full` of the `users` meet all `candidates`; each of the others, whose lists are taken over, meets
    about `each` of them: the `changed` ones and what bias moves.
    """

    users: int
    in_full: int
    candidates: int
    changed: int
    each: float

    @property
    def taken_over(self) -> int:
        """Users whose lists are taken over."""
        return self.users - self.in_full

    @property
    def pairs(self) -> int:
        """About how many are scored."""
        return self.in_full * self.candidates + round(self.taken_over * self.each)

    def describe(self) -> str:
        """In a line, with what is spared."""
        whole = self.users * self.candidates
        if too_many_changed(self.changed, self.candidates):
            return (
                f"{self.changed:,} of {self.candidates:,} candidates changed, so all {self.users:,} users "
                f"meet all of them: {self.pairs:,} pairs"
            )
        return (
            f"about {self.in_full:,} of {self.users:,} users changed, or have no room left in their lists, "
            f"and meet all {self.candidates:,} candidates; the others meet the {self.changed:,} that changed "
            f"and those whose bias rose: about {self.pairs:,} pairs, {whole - self.pairs:,} avoided"
        )


class Past(NamedTuple):
    """What the night before tells of tonight.

    `renewed`: the share of users that were scored in full though they had not changed. `moved`: candidates
    that bias made a user meet whose list was taken over.
    """

    renewed: float = 0.0
    moved: float = 0.0

    @classmethod
    def of(cls, warehouse: Warehouse, base: BaseRun, policy: Policy) -> Past:
        """From the manifests of the night that tonight starts from; nothing where it was a full one."""
        scored = find_manifest(warehouse, base.run_id, "score_candidates") or {}
        states = find_manifest(warehouse, base.run_id, "build_link_states") or {}
        told = scored.get("policies", {}).get(policy.name, {})
        if not (taken := told.get("users_taken_over")):
            return cls()
        stood = max(states.get("kept", 0), taken)
        moved = told["pairs_taken_over"] / taken - scored["entries"]["changed"]
        return cls(1 - taken / stood, max(0.0, moved))


def estimate_workload(users: int, active: int, candidates: int, changed: int, past: Past) -> Workload:
    """Of an incremental night.

    Args:
        users: of the night.
        active: of them, those that changed since the night that it starts from.
        candidates: of the night.
        changed: of them, those that changed, whom every user meets.
        past: what the night before tells.
    """
    if too_many_changed(changed, candidates):
        return Workload(users, users, candidates, changed, 0.0)
    in_full = min(users, active + round(past.renewed * (users - active)))
    return Workload(users, in_full, candidates, changed, min(changed + past.moved, candidates))


class Foretold(NamedTuple):
    """The work of a night, and what it is planned to start from."""

    work: Workload
    why: str


def foretell_workload(
    warehouse: Warehouse, run: Run, model_version: str, users: int, candidates: int
) -> Foretold:
    """The work of the run's night under the published policy, as far as the tables tell before it is scored.

    Args:
        model_version: the bundle that scores.
        users: of the night.
        candidates: of the night.
    """
    policy = warehouse.settings.night.policy
    base, why = find_base(warehouse, run, describe_entries(warehouse, model_version, policy))
    if base is None:
        return Foretold(Workload(users, users, candidates, 0, 0.0), why)
    changed = count_changed_items(warehouse, run, base.ds)
    active = count_active_users(warehouse, run, base.ds)
    past = Past.of(warehouse, base, policy)
    return Foretold(estimate_workload(users, active, candidates, changed, past), why)


def count_changed_items(warehouse: Warehouse, run: Run, since: str) -> int:
    """Items that changed since a night: as the run's build counted them, or by when their versions begin."""
    if bank := find_manifest(warehouse, run.run_id, "build_candidate_bank"):
        return int(bank["encoded"])
    if not warehouse.exists("items"):
        return 0
    day = F.date_sub(F.lit(run.ds).cast("date"), 1)
    fresh = (F.col(VALID_FROM) >= F.lit(since).cast("date")) & (F.col(VALID_FROM) <= day)
    current = F.col(VALID_TO).isNull() | (F.col(VALID_TO) > day)
    return int(warehouse.read("items").where(fresh & current).count())


def count_active_users(warehouse: Warehouse, run: Run, since: str) -> int:
    """Users whose link states changed since a night: as the run's build counted them, or by their events."""
    if states := find_manifest(warehouse, run.run_id, "build_link_states"):
        return int(states["users"] - states["kept"])
    fresh = read_events(warehouse, run.ds).where(F.col(DS) >= F.lit(since).cast("date"))
    return int(fresh.select(USER_ID).distinct().count())
