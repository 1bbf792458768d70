"""An earlier night's list, reused exactly: which entries are still valid, and which pairs to score.

Write z for a score without the night's bias β. When a user is scored in full (the *anchor* night), more than
K entries (row, z) are kept, and τ: an upper bound of z + β_ref over every candidate that is not kept, where
β_ref, the candidate's *reference*, is its bias of the anchor night. While the user does not change, the z of
each pair stays the same. On a later night:

1. Entries whose candidate has left or changed are dropped; the others get this night's β.
2. Pairs of *changed* candidates are scored: candidates that are new, look different or may be recommended
   again. Those that reach τ are kept. The others have z + β(this night) < τ, so this night's bias becomes
   their reference (`ReferenceBias`). Pairs whose exclusion lapses are scored and kept whatever they reach.
3. A candidate that is not kept scores at most τ + (β(this night) - β_ref). So only *movers*, whose bias rose
   by the slack (K-th score - τ) or more, can enter the list, and they are scored.
4. Without slack, or with so many movers that scoring the user in full is cheaper, there is a new anchor.

What is published is fp32(z + β) of the stored z: the same bits as of a full night.

Letters: C candidates of this night, n entries kept, K list length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from lime_model.arrays import F32, F64, Bools, Ints
from lime_model.scoring.canonical import round_scores
from lime_model.scoring.queries import TopK

# A share of the numbers involved. fp32 rounds the scores (2⁻²⁴) and float64 the sums (2⁻⁵³), both twice; the
# rest is margin.
ROUNDING = 2.0**-21
STEP = 2.0**-149  # the step of fp32 near zero, where rounding errs by half of it however small the number


class KeptEntries(NamedTuple):
    """A user's kept entries and the bound on everything else.

    `rows [n]` are rows of this night's candidates in any order, and `z [n]` includes the repeat memory and
    not β. `tau`, an fp32 number, is -inf when nothing is left out.
    """

    rows: Ints
    z: F64
    tau: float


class ReferenceBias(NamedTuple):
    """When each candidate took its present form, and its bias of that night: `since [C]`, `beta [C]`.

    `since` is a night's number. A candidate that had its present form at the anchor has the anchor's bias as
    its reference.
    """

    since: Ints
    beta: F32

    def at(self, anchor: int, bias: F32) -> F32:
        """Return β_ref `[C]` for users of the anchor night `anchor`, whose bias `[C]` was `bias`."""
        return np.where(self.since > anchor, self.beta, bias)


class Movers(NamedTuple):
    """Candidates whose bias rose since their reference: `rows` and `rise`, the largest rise first."""

    rows: Ints
    rise: F64

    @classmethod
    def find(cls, beta: F32, reference: F32) -> Movers:
        """Find them among all candidates, from this night's bias `[C]` and the references `[C]`."""
        rise = beta.astype(np.float64) - reference.astype(np.float64)
        rows = np.flatnonzero(rise > 0)
        rows = rows[np.argsort(-rise[rows], kind="stable")]
        return cls(rows, rise[rows])

    def within(self, slack: float) -> int:
        """Count the movers that rose by `slack` or more; they are the first ones."""
        return int(np.searchsorted(-self.rise, -slack, side="right"))


def keep_best(best: TopK, wanted: int) -> KeptEntries:
    """Keep the `wanted` best of a user who was scored in full, or all there are when they are fewer."""
    if len(best.rows) < wanted:
        return KeptEntries(best.rows, best.z, -np.inf)
    # Everything else was published at or below the last score; its exact score is at most half an ulp above
    # that.
    return KeptEntries(best.rows, best.z, float(np.nextafter(best.scores[-1], np.float32(np.inf))))


def drop_entries(kept: KeptEntries, changed: Bools) -> KeptEntries:
    """Drop entries whose candidate has left (row -1) or is one of `changed [C]`, so that their z is outdated.

    τ does not move: it bounds what was never kept, and dropping an entry adds nothing to that, because a
    changed candidate is scored again.
    """
    valid = kept.rows >= 0
    valid[valid] = ~changed[kept.rows[valid]]  # a row of -1 must not be looked up
    return kept._replace(rows=kept.rows[valid], z=kept.z[valid])


def add_entries(kept: KeptEntries, found: TopK) -> KeptEntries:
    """Add further entries; an entry of a candidate that was kept before takes its new z."""
    if len(found.rows) == 0:
        return kept
    old = ~np.isin(kept.rows, found.rows)
    rows, z = np.append(kept.rows[old], found.rows), np.append(kept.z[old], found.z)
    return kept._replace(rows=rows, z=z)


def list_best(kept: KeptEntries, beta: F32, k: int) -> TopK:
    """List the best k entries.

    Args:
        kept: the user's entries.
        beta: this night's bias `[C]`.
        k: list length.
    """
    return TopK(kept.rows, round_scores(kept.z, beta[kept.rows]), kept.z).best(k)


def find_slack(kept: KeptEntries, scores: F32, k: int, largest: float) -> float:
    """Bound how far the bias of a candidate that is not kept may rise while its score stays below the list.

    Args:
        kept: the user's entries, changed pairs included.
        scores: published scores of the k best entries.
        k: list length.
        largest: the largest |β| of this night and of all references.

    Returns:
        inf when nothing is left out; 0 or less when the entries can't prove the list.
    """
    if kept.tau == -np.inf:
        return np.inf
    if len(scores) < k:
        return -np.inf
    kth = float(scores[k - 1])
    # Both sides of the comparison are rounded, and so are the bias and its reference: the margin is relative
    # to every number involved, plus one step of fp32 near zero.
    return kth - kept.tau - ROUNDING * (abs(kth) + abs(kept.tau) + largest) - STEP


class CandidateChanges(NamedTuple):
    """What changed among the candidates for all users of a night.

    `beta [C]` is this night's bias. `changed [C]` marks candidates that no entry is valid for. `movers` are
    listed by anchor night. For `largest` see `find_slack`. A user with more movers than `limit` is scored in
    full.
    """

    beta: F32
    changed: Bools
    movers: Mapping[int, Movers]
    largest: float
    limit: int


class PairScorer(Protocol):
    """Scores pairs of one user.

    It returns those candidates that the user may be recommended and whose published score reaches the floor.
    """

    def lapsed(self) -> TopK:
        """Score the candidates that were excluded on the night before and are not any more, with no floor."""

    def movers(self, anchor: int, count: int, floor: float) -> TopK:
        """Score the first `count` movers of an anchor night, or more of them.

        Args:
            anchor: number of the anchor night.
            count: how many movers the list needs.
            floor: the score that a mover must reach to be returned.
        """


class AdvancedList(NamedTuple):
    """A user's list of this night, and the entries that are kept for the next one."""

    kept: KeptEntries
    best: TopK


def advance_list(
    kept: KeptEntries, changed: TopK, anchor: int, night: CandidateChanges, k: int, pairs: PairScorer
) -> AdvancedList | None:
    """Compute the exact list of a user who did not change since the night before, or None.

    τ stays the same from the anchor night on. It bounds z + β_ref of all candidates that were not kept there,
    and neither z nor β_ref changes later. Lowering it, or dropping an entry because its score fell, would
    leave a candidate outside the entries that the bound does not cover.

    Args:
        kept: the entries of the night before, at rows of this night (-1: the candidate has left).
        changed: those of `CandidateChanges.changed` that the user may be recommended and whose published
            score reaches `kept.tau`.
        anchor: number of the night of the user's last full scoring.
        night: what changed for all users.
        k: list length.
        pairs: scores pairs of this user.

    Returns:
        The list and its entries; None when the user must be scored in full.
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
