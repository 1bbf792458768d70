"""The sections of the settings about nights: what a night produces, its audits, promotion and upkeep."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lime_model.scoring import BackendName
from pipelines.policies.rules import ExcludeSeen
from pipelines.settings.base import Date, Name, Section


def _check_seen(value: Any) -> Any:
    """Refuse a truth value, which Python would take for a number of days."""
    days = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not days and value not in ("none", "all"):
        raise ValueError("exclude_seen is none, all, or a number of days that must be at least 1")
    return value


class Policy(Section):
    """Which candidates a user may get."""

    name: Name = "all"
    # Items of the user's own events that are left out: none of them, all of them, or those of so many days.
    exclude_seen: Annotated[ExcludeSeen, BeforeValidator(_check_seen)] = "none"
    eligible: str = "true"  # a condition in SQL over item columns; null counts as false


class NightSettings(Section):
    """The lists that a night produces."""

    model: str  # the name of one of `models`
    k: int = Field(default=100, ge=1)  # items of a list
    policy: Policy = Policy()
    reuse: bool = True  # score only what changed since the last certified night; the lists are the same
    buckets: int = Field(default=16, ge=1)  # work units; the number is fixed when the warehouse is made
    units_per_commit: int = Field(default=8, ge=1)  # work units; fewer let a rerun keep more
    backend: BackendName = "auto"  # auto: the fastest one that the host has
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    certificate_users: int = Field(default=200, ge=1)  # fewest users whose lists are verified
    # Share (of 1) of the bank's rows, and of the users, that a night may leave out with a reason because they
    # are damaged. 0: the first damaged row fails the night.
    max_damaged_share: float = Field(default=0.0, ge=0.0, lt=1.0)

    @property
    def strict(self) -> bool:
        """Whether the first damaged row fails the night."""
        return self.max_damaged_share == 0


# Audits that judge a night by degree; an audit of what must always hold can't be overridden.
SoftCheck = Literal[
    "short_share",
    "cold_share",
    "top_share",
    "item_coverage",
    "served_share",
    "psi",
    "jaccard",
    "rank_biased_overlap",
]


class Override(Section):
    """An audit that does not stop one night, and the reason; the night's manifest records both."""

    night: Date
    check: SoftCheck
    reason: str = Field(min_length=10)  # letters


class AuditSettings(Section):
    """The limits within which a night may be published; see docs/operate.md. All shares are of 1."""

    max_short_share: float = Field(default=0.1, ge=0, le=1)  # users with fewer than K items
    max_cold_share: float = Field(default=0.5, ge=0, le=1)  # users without events
    max_top_share: float = Field(default=0.9, ge=0, le=1)  # places that the most listed 1 % of items take
    min_item_coverage: float = Field(default=0.001, ge=0, le=1)  # eligible items that any list holds
    # The next four compare the night with the last published one: the number of users with a list, and, in
    # each segment (cold, active, idle) that has enough users, their scores and lists.
    min_served_share: float = Field(default=0.9, ge=0)  # users with a list, as a share of last time's
    max_psi: float = Field(default=0.25, gt=0)  # population stability index of the scores
    min_jaccard: float = Field(default=0.3, ge=0, le=1)  # mean overlap of a user's two lists as sets
    min_rank_biased_overlap: float = Field(default=0.3, ge=0, le=1)  # mean overlap that weighs the top more
    min_segment_users: int = Field(default=100, ge=1)  # users; smaller segments are not compared
    overrides: list[Override] = Field(default_factory=list)


class PromotionSettings(Section):
    """When a newly trained bundle takes over; see jobs/challenge_model.py."""

    horizon_days: int = Field(default=7, ge=1)  # days before the night that training leaves out to judge by
    min_events: int = Field(default=20, ge=1)  # events of history that a user needs to be counted
    margin: float = Field(default=0.0, ge=0)  # gain in recall@K (for labels: AUC) over the champion's


class UpkeepSettings(Section):
    """What jobs/tidy_tables.py keeps; see docs/operate.md."""

    keep_nights: int = Field(default=14, ge=1, le=36_500)  # nights before the newest whose staged rows remain
    # Days for which tables can be read as they were, and nights taken back.
    keep_days: int = Field(default=7, ge=1, le=36_500)
