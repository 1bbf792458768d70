"""The sections of the settings about nights: its lists, audits, page, promotion and upkeep."""

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
    """The name of the policy: 1 to 64 letters, digits and `_ . -`, the first one a letter or digit."""
    exclude_seen: Annotated[ExcludeSeen, BeforeValidator(_check_seen)] = "none"
    """Which items of the user's own events are left out: `none`, `all`, or those of the last so many days,
    at least 1."""
    eligible: str = "true"
    """A condition in SQL over item columns that an item of a list meets; null counts as false."""


class NightSettings(Section):
    """The lists that a night produces."""

    model: str
    """The name of one of `models`, which scores the night."""
    k: int = Field(default=100, ge=1)
    """The number of items of a list."""
    policy: Policy = Policy()
    """Which items a user may get."""
    reuse: bool = True
    """Whether a night scores only what changed since the last certified one; the lists are the same."""
    buckets: int = Field(default=16, ge=1)
    """The number of work units of a night, which is fixed when the warehouse is made."""
    units_per_commit: int = Field(default=8, ge=1)
    """The work units that one commit stages; with fewer of them, a rerun keeps more."""
    backend: BackendName = "auto"
    """The backend that filters candidates; `auto`: the fastest one that the host has."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device that scores; `auto`: a GPU where there is one."""
    certificate_users: int = Field(default=200, ge=1)
    """The fewest users whose lists are verified; all users, if there are fewer."""
    max_damaged_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The highest share of the bank's rows, and of the users, that a night may leave out as damaged,
    each with a reason; with 0, the first damaged row fails the night."""

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
    """The night (YYYY-MM-DD) that the audit does not stop."""
    check: SoftCheck
    """The audit; one of what must always hold cannot be overridden."""
    reason: str = Field(min_length=10)
    """The reason, which the manifest of the night records."""


class AuditSettings(Section):
    """The limits within which a night may be published; see docs/operate.md. All shares are of 1."""

    max_short_share: float = Field(default=0.1, ge=0, le=1)
    """The highest share of users with fewer than K items."""
    max_cold_share: float = Field(default=0.5, ge=0, le=1)
    """The highest share of users without events."""
    max_top_share: float = Field(default=0.9, ge=0, le=1)
    """The highest share of the places of all lists that the most listed 1 % of items take."""
    min_item_coverage: float = Field(default=0.001, ge=0, le=1)
    """The lowest share of eligible items that are in any list."""
    min_served_share: float = Field(default=0.9, ge=0)
    """The lowest number of users with a list, as a share of that of the last published night."""
    max_psi: float = Field(default=0.25, gt=0)
    """The highest population stability index of the scores, against the last published night."""
    min_jaccard: float = Field(default=0.3, ge=0, le=1)
    """The lowest mean overlap, as sets, of a user's list with that of the last published night."""
    min_rank_biased_overlap: float = Field(default=0.3, ge=0, le=1)
    """The lowest mean overlap, with more weight at the top, of the same two lists."""
    min_segment_users: int = Field(default=100, ge=1)
    """The fewest users of a segment (cold, active, idle) whose scores and lists are compared at all."""
    overrides: list[Override] = Field(default_factory=list)
    """The audits that do not stop one night each."""


class PromotionSettings(Section):
    """When a newly trained bundle takes over; see jobs/challenge_model.py."""

    horizon_days: int = Field(default=7, ge=1)
    """The days before the night that training leaves out and both bundles are judged by."""
    min_events: int = Field(default=20, ge=1)
    """The fewest events of history with which a user counts."""
    margin: float = Field(default=0.0, ge=0)
    """The lowest gain in recall@K (for labels, in AUC) over the champion's."""


class ReportSettings(Section):
    """What the page of a night shows; see docs/operate.md."""

    item_name: list[str] = Field(default_factory=list)
    """The columns of `items` that together name an item, in this order; with none, a text column `name`,
    `title` or `description` names it, and without any of these, its id."""


class UpkeepSettings(Section):
    """What jobs/tidy_tables.py keeps; see docs/operate.md."""

    keep_nights: int = Field(default=14, ge=1, le=36_500)
    """The nights before the newest one whose staged rows are kept."""
    keep_days: int = Field(default=7, ge=1, le=36_500)
    """The days for which tables can be read as they were, and nights taken back."""
