"""A night is a plan: a list of work units, each a bucket of users against an item set.

A full night has every bucket in it. Resuming takes up the units that are not staged yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STEP_NAMES = (
    "ingest_events",
    "build_candidate_bank",
    "build_link_states",
    "score_candidates",
    "verify_night",
    "audit_recommendations",
    "publish_recommendations",
    "export_recommendations",
)
NEEDS = {  # what a step reads of the same run
    "ingest_events": (),
    "build_candidate_bank": (),
    "build_link_states": (),
    "score_candidates": ("build_candidate_bank", "build_link_states"),
    "verify_night": ("score_candidates",),
    "audit_recommendations": ("score_candidates", "verify_night"),
    "publish_recommendations": ("score_candidates", "verify_night", "audit_recommendations"),
    "export_recommendations": (),
}
UDF_STEPS = frozenset({"build_candidate_bank", "build_link_states", "score_candidates"})  # by torch


@dataclass(frozen=True)
class WorkUnit:
    """One bucket of users against all eligible candidates of a policy."""

    bucket: int


@dataclass(frozen=True)
class Plan:
    """The units of one run, and why there are that many."""

    units: tuple[WorkUnit, ...]
    why: str

    def commits(self, size: int) -> list[tuple[WorkUnit, ...]]:
        """Units that share a commit, `size` at a time; the grouping never depends on what is done already."""
        return [self.units[i : i + size] for i in range(0, len(self.units), size)]


def missing(groups: Iterable[tuple[WorkUnit, ...]], staged: Iterable[int]) -> list[int]:
    """Indices of the groups with no staged bucket: a group is one commit, there whole or not at all."""
    done = set(staged)
    return [i for i, group in enumerate(groups) if not done & {unit.bucket for unit in group}]


def plan_full(buckets: int) -> Plan:
    """Every bucket."""
    return Plan(tuple(WorkUnit(b) for b in range(buckets)), "full night: every user, every candidate")
