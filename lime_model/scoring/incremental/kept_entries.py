"""Last night's answer, reused exactly: what of it still stands, and which few pairs to score tonight.

Write z for a score without the night's bias β. When a user is scored in full (the *anchor*
night), more than K entries (row, z) are kept, and τ: an upper bound of z + β_ref of every candidate
that is not kept, where β_ref, the candidate's *reference*, is its bias of the anchor night. While
the user does not change, z of each pair stands. On a later night:

1. Entries whose candidate has left or changed are dropped; tonight's β goes on the others.
2. Pairs of *changed* candidates are scored: those that are new, look different or may be recommended
   again. Those that reach τ are kept; the others have z + β(tonight) < τ, so tonight's bias becomes
   their reference (`ReferenceBias`). Exclusions that lapse are scored and kept whatever they reach.
3. A candidate that is not kept scores at most τ + (β(tonight) - β_ref). So only *movers*, whose
   bias rose by the slack (K-th score - τ) or more, can enter the list: they are scored.
4. Without slack, or with more movers than scoring the user in full is worth, there is a new anchor.

τ never moves while an anchor stands, and no entry is dropped because its score fell: both would
make the bound wrong. What is published is fp32(z + β) of stored z: the same bits as of a full night.

Letters: C candidates of tonight, n entries kept, K list length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from lime_model.arrays import F32, F64, Bools, Ints
from lime_model.scoring.canonical import publish
from lime_model.scoring.topk import TopK

# Of the numbers involved: fp32 rounds the scores (2⁻²⁴), float64 the sums (2⁻⁵³); both twice over, and room.
ROUNDING = 2.0**-21
STEP = 2.0**-149  # of fp32 near zero, where rounding errs by half of it however small the number


class KeptEntries(NamedTuple):
    """A user's entries and what bounds everything else.

    `rows [n]` of tonight's candidates (any order), `z [n]` with the repeat memory and without β,
    `tau` in fp32; -inf when nothing is left out.
    """

    rows: Ints
    z: F64
    tau: float


class ReferenceBias(NamedTuple):
    """When a candidate took its present form, and its bias that night: `since [C]`, `beta [C]`.

    `since` counts nights of the chain; a candidate that stood at an anchor has the anchor's bias.
    """

    since: Ints
    beta: F32

    def at(self, anchor: int, bias: F32) -> F32:
        """β_ref `[C]` of users anchored at night `anchor`, whose bias `[C]` was `bias`."""
        return np.where(self.since > anchor, self.beta, bias)


class Movers(NamedTuple):
    """Candidates whose bias rose since their reference: `rows`, by how much `rise`, the largest first."""

    rows: Ints
    rise: F64

    @classmethod
    def find(cls, beta: F32, reference: F32) -> Movers:
        """Of all candidates, from tonight's bias `[C]` and their references `[C]`."""
        rise = beta.astype(np.float64) - reference.astype(np.float64)
        rows = np.flatnonzero(rise > 0)
        rows = rows[np.argsort(-rise[rows], kind="stable")]
        return cls(rows, rise[rows])

    def within(self, slack: float) -> int:
        """How many, from the first, rose by `slack` or more."""
        return int(np.searchsorted(-self.rise, -slack, side="right"))


def keep_best(best: TopK, wanted: int) -> KeptEntries:
    """The entries of a user scored in full: its `wanted` best, or all it has when they are fewer."""
    if len(best.rows) < wanted:
        return KeptEntries(best.rows, best.z, -np.inf)
    # Everything else was published at or below the last one: its exact score is at most half an ulp above.
    return KeptEntries(best.rows, best.z, float(np.nextafter(best.scores[-1], np.float32(np.inf))))


def drop_entries(kept: KeptEntries, changed: Bools) -> KeptEntries:
    """Without entries whose candidate has left (row -1) or is one of `changed [C]`: that z is past."""
    stands = kept.rows >= 0
    stands[stands] = ~changed[kept.rows[stands]]  # none may be left to look up
    return kept._replace(rows=kept.rows[stands], z=kept.z[stands])


def add_entries(kept: KeptEntries, found: TopK) -> KeptEntries:
    """With further entries; one that was kept before takes its new z."""
    if len(found.rows) == 0:
        return kept
    old = ~np.isin(kept.rows, found.rows)
    rows, z = np.append(kept.rows[old], found.rows), np.append(kept.z[old], found.z)
    return kept._replace(rows=rows, z=z)


def list_best(kept: KeptEntries, beta: F32, k: int) -> TopK:
    """The best k entries with tonight's bias `[C]`."""
    return TopK(kept.rows, publish(kept.z, beta[kept.rows]), kept.z).best(k)


def find_slack(kept: KeptEntries, scores: F32, k: int, largest: float) -> float:
    """How far the bias of a candidate that is not kept may rise and still leave it below the list.

    Args:
        kept: the user's entries, changed pairs included.
        scores: of the k best of them.
        k: list length.
        largest: the largest |β| of tonight and of all references.

    Returns:
        inf when nothing is left out; 0 or less when the entries can't prove the list.
    """
    if kept.tau == -np.inf:
        return np.inf
    if len(scores) < k:
        return -np.inf
    kth = float(scores[k - 1])
    return kth - kept.tau - ROUNDING * (abs(kth) + abs(kept.tau) + largest) - STEP


class CandidateChanges(NamedTuple):
    """What a night brings to users who did not change.

    `beta [C]`; `changed [C]`: candidates that no entry can speak for; `movers` by anchor night;
    `largest`: see `find_slack`; `limit`: with more movers than this a user is scored in full.
    """

    beta: F32
    changed: Bools
    movers: Mapping[int, Movers]
    largest: float
    limit: int


class PairScorer(Protocol):
    """Scores pairs of one user: all of these candidates that the user may be recommended and whose published
    score reaches the floor."""

    def lapsed(self) -> TopK:
        """Of those that were excluded the night before and are not tonight: whatever they reach."""

    def movers(self, anchor: int, count: int, floor: float) -> TopK:
        """Of the first `count` movers, or more."""


class AdvancedList(NamedTuple):
    """A user's answer of tonight, and what is kept for the next night."""

    kept: KeptEntries
    best: TopK


def advance_list(
    kept: KeptEntries, changed: TopK, anchor: int, night: CandidateChanges, k: int, pairs: PairScorer
) -> AdvancedList | None:
    """NightChanges's exact list of a user who did not change since the night before; None: score it in full.

    Args:
        kept: the entries of the night before, their rows those of tonight (-1: has left).
        changed: of `CandidateChanges.changed`, those that the user may be recommended and whose published score
            reaches `kept.tau`.
        anchor: the night of the user's last full scoring.
        night: what changed for everybody.
        k: list length.
        pairs: scores pairs of this user.
    """
    kept = drop_entries(kept, night.changed)
    kept = add_entries(kept, changed)
    kept = add_entries(kept, pairs.lapsed())
    best = list_best(kept, night.beta, k)
    slack = find_slack(kept, best.scores, k, night.largest)
    count = night.movers[anchor].within(slack)
    if slack <= 0 or count > night.limit:
        return None
    if count:
        kept = add_entries(kept, pairs.movers(anchor, count, float(best.scores[-1])))
        best = list_best(kept, night.beta, k)
    return AdvancedList(kept, best)
