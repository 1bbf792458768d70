"""Kept entries over random sequences of nights: each list equals that of a full night to the bit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from lime_model.arrays import F32, F64, Ints
from lime_model.scoring.incremental.kept_entries import (
    CandidateChanges,
    KeptEntries,
    Movers,
    ReferenceBias,
    advance_list,
    find_slack,
    keep_best,
)
from lime_model.scoring.queries import TopK

USERS, ITEMS = 4, 30
ANY_ITEM = st.integers(0, ITEMS - 1)
# Scores are multiples of 1/8 or differ from them by very little: some steps make ties, and some just do not.
STEP = st.sampled_from([-1.0, -0.5, -0.125, -0.1, 1e-7, 0.1, 0.125, 0.25, 0.5, 1.0])


def compute_z(user: int, look: int, item: int, form: int) -> float:
    """Return a fixed number for a pair in its present form; few numbers occur, so ties are common."""
    digest = hashlib.sha256(f"{user} {look} {item} {form}".encode()).digest()
    return (
        int.from_bytes(digest[:2], "little") % 41 / 8
        - 2.5
        + (1e-9 * digest[3] if digest[2] % 4 == 0 else 0.0)
    )


@dataclass
class Entry:
    """What is stored for a user, by item, as rows differ from night to night."""

    items: list[int]
    z: F64
    tau: float
    anchor: int
    look: int
    excluded: frozenset[int]


@dataclass
class Snapshot:
    """What a finished night leaves."""

    forms: dict[int, int]  # of its candidates
    since: dict[int, int]
    reference: dict[int, float]
    bias: dict[int, float]
    entries: dict[int, Entry]
    k: int


@dataclass
class World:
    """The shop as it is today."""

    forms: dict[int, int] = field(default_factory=dict)
    eligible: set[int] = field(default_factory=set)
    bias: dict[int, float] = field(default_factory=dict)
    looks: dict[int, int] = field(default_factory=dict)
    excluded: dict[int, dict[int, int]] = field(default_factory=dict)  # user -> item -> until
    k: int = 4
    night: int = 0


class Nights(RuleBasedStateMachine):
    """Nights with every kind of change between them; a night may also crash and leave nothing."""

    @initialize(k=st.integers(1, 6), eligible=st.sets(st.integers(0, ITEMS - 1), min_size=1))
    def open_shop(self, k: int, eligible: set[int]) -> None:
        self.world = World(
            dict.fromkeys(range(ITEMS), 0), set(eligible), dict.fromkeys(range(ITEMS), 0.0),
            dict.fromkeys(range(USERS), 0), {user: {} for user in range(USERS)}, k,
        )  # fmt: skip
        self.snapshots: dict[int, Snapshot] = {}
        self.last: int | None = None
        self.reused = self.scored = 0
        self.run_night(crash=False)

    @rule(
        changed=st.lists(st.tuples(st.sampled_from(["look", "there", "eligible"]), ANY_ITEM), max_size=3),
        moved=st.dictionaries(ANY_ITEM, STEP, max_size=12),
        all_by=st.one_of(st.just(0.0), STEP),
        active=st.dictionaries(st.integers(0, USERS - 1), st.tuples(ANY_ITEM, st.integers(1, 4)), max_size=2),
        k=st.one_of(*[st.none()] * 9, st.integers(1, 8)),
        crash=st.sampled_from([False] * 5 + [True]),
        gap=st.sampled_from([1, 1, 1, 2]),
    )
    def next_night(
        self,
        changed: list[tuple[str, int]],
        moved: dict[int, float],
        all_by: float,
        active: dict[int, tuple[int, int]],
        k: int | None,
        crash: bool,
        gap: int,
    ) -> None:
        world = self.world
        world.night += gap
        for kind, item in changed:
            self.change(kind, item)
        for item in world.bias:
            world.bias[item] = float(np.float32(world.bias[item] + all_by + moved.get(item, 0.0)))
        for user, (item, nights) in active.items():
            world.looks[user] += 1
            world.excluded[user][item] = world.night + nights
        world.k = k or world.k
        self.run_night(crash)

    def change(self, kind: str, item: int) -> None:
        world = self.world
        if kind == "eligible":
            world.eligible ^= {item}
        elif kind == "there" and item in world.forms:
            del world.forms[item]
        elif kind == "there":
            world.forms[item] = 0  # in its first form
        elif item in world.forms:
            world.forms[item] += 1

    @precondition(lambda self: self.last is not None)
    @rule()
    def run_again(self) -> None:
        del self.snapshots[self.last]
        self.last = max(self.snapshots, default=None)
        self.run_night(crash=False)

    def run_night(self, crash: bool) -> None:
        """Run a night from the last finished one; every list must be that of a full night."""
        world, base = self.world, self.snapshots.get(self.last) if self.last is not None else None
        items = sorted(set(world.forms) & world.eligible)
        beta = np.asarray([world.bias.get(i, 0.0) for i in items], np.float32)
        reference = self.find_since(items, beta, base)
        entries = {}
        for user in range(USERS):
            away = frozenset(i for i, until in world.excluded[user].items() if until > world.night)
            entry = self.reuse(user, items, beta, reference, base, away)
            entries[user] = entry or self.score_in_full(user, items, beta, away)
        if not crash:
            self.snapshots[world.night] = Snapshot(
                {i: world.forms[i] for i in items},
                *(dict(zip(items, x.tolist(), strict=True)) for x in (reference.since, reference.beta, beta)),
                entries, world.k,
            )  # fmt: skip
            self.last = world.night

    def find_since(self, items: list[int], beta: F32, base: Snapshot | None) -> ReferenceBias:
        """Find since when each candidate has its present form, and its bias of that night."""
        since, reference = np.full(len(items), self.world.night), beta.copy()
        for row, item in enumerate(items):
            if base is not None and base.forms.get(item) == self.world.forms[item]:
                since[row], reference[row] = base.since[item], base.reference[item]
        return ReferenceBias(since, reference)

    def z_of(self, user: int, items: list[int], rows: Ints) -> F64:
        look = self.world.looks[user]
        return np.asarray([compute_z(user, look, items[r], self.world.forms[items[r]]) for r in rows])

    def brute_force(self, user: int, items: list[int], beta: F32, away: frozenset[int], wanted: int) -> TopK:
        rows = np.asarray([r for r, item in enumerate(items) if item not in away], np.int64)
        z = self.z_of(user, items, rows)
        scores = (z + beta[rows].astype(np.float64)).astype(np.float32)
        return TopK(rows, scores, z).best(wanted)

    def score_in_full(self, user: int, items: list[int], beta: F32, away: frozenset[int]) -> Entry:
        world = self.world
        kept = keep_best(self.brute_force(user, items, beta, away, 2 * world.k), 2 * world.k)
        self.scored += 1
        names = [items[r] for r in kept.rows]
        return Entry(names, kept.z, kept.tau, world.night, world.looks[user], away)

    def reuse(
        self,
        user: int,
        items: list[int],
        beta: F32,
        reference: ReferenceBias,
        base: Snapshot | None,
        away: frozenset[int],
    ) -> Entry | None:
        world = self.world
        entry = base.entries[user] if base else None
        if base is None or entry is None or entry.look != world.looks[user] or base.k != world.k:
            return None
        row_of = {item: row for row, item in enumerate(items)}
        # An entry is not valid for a candidate that has another form now; `changed` marks it.
        kept = KeptEntries(np.asarray([row_of.get(i, -1) for i in entry.items], np.int64), entry.z, entry.tau)
        changed = reference.since == world.night
        anchor_bias = self.snapshots[entry.anchor].bias
        references = reference.at(
            entry.anchor, np.asarray([anchor_bias.get(i, 0.0) for i in items], np.float32)
        )
        lapsed = np.asarray(sorted(row_of[i] for i in entry.excluded - away if i in row_of), np.int64)
        movers = Movers.find(beta, references)
        night = CandidateChanges(beta, changed, {entry.anchor: movers}, 20.0, len(items) // 2)

        def score(rows: Ints, floor: float) -> TopK:
            rows = np.asarray([r for r in rows if items[r] not in away], np.int64)
            z = self.z_of(user, items, rows)
            scores = (z + beta[rows].astype(np.float64)).astype(np.float32)
            return TopK(rows, scores, z).take(scores >= np.float32(floor))

        class Scored:
            def lapsed(self) -> TopK:
                return score(lapsed, -np.inf)

            def movers(self, anchor: int, count: int, floor: float) -> TopK:
                return score(movers.rows[:count], floor)

        reaching = score(np.flatnonzero(changed), entry.tau)
        found = advance_list(kept, reaching, entry.anchor, night, world.k, Scored())
        if found is None:
            return None
        full = self.brute_force(user, items, beta, away, world.k)
        assert [side.tobytes() for side in found.best] == [side.tobytes() for side in full]
        self.reused += 1
        names = [items[r] for r in found.kept.rows]
        return replace(entry, items=names, z=found.kept.z, excluded=away)


Nights.TestCase.settings = settings(
    max_examples=200, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
)
TestNights = Nights.TestCase


def test_a_candidate_that_changed_after_the_anchor_is_bounded_by_its_bias_of_that_night() -> None:
    reference = ReferenceBias(np.asarray([0, 2, 3]), np.asarray([9.0, 9.0, 0.5], np.float32))
    bias = np.asarray([1.0, 2.0, 3.0], np.float32)
    assert reference.at(2, bias).tolist() == [
        1.0,
        2.0,
        0.5,
    ]  # night 2 is the anchor itself


def test_what_is_left_out_may_lie_above_the_last_score_that_was_kept() -> None:
    # fp32 has 1 and 1 + 2⁻²³: 1 + 2⁻²⁵ is published as 1, behind a smaller z of a smaller row.
    z = np.asarray([2.0, 1.0, 1.0 + 2.0**-25])
    scores = z.astype(np.float32)
    kept = keep_best(TopK(np.arange(3), scores, z).best(2), 2)
    assert kept.rows.tolist() == [0, 1]
    assert kept.tau >= z[2]
    assert keep_best(TopK(np.arange(3), scores, z), 4).tau == -np.inf  # nothing is left out


def test_a_mover_that_rose_by_exactly_the_slack_may_tie_and_is_scored() -> None:
    movers = Movers.find(np.asarray([0.5, 0.25, 1.0, -1.0], np.float32), np.zeros(4, np.float32))
    assert movers.rows.tolist() == [2, 0, 1]
    assert [movers.within(slack) for slack in (2.0, 1.0, 0.5, 0.4)] == [0, 1, 2, 2]


@given(
    scale=st.sampled_from([2.0**-149, 1e-40, 2.0**-126, 1e-30, 1.0, 1e25]),
    kth=st.integers(-40, 40),
    below=st.integers(0, 60),
)
def test_no_rise_within_the_slack_reaches_the_list_at_any_magnitude(
    scale: float, kth: int, below: int
) -> None:
    """Near zero fp32 rounds by a fixed step, however small the score, and a tie would enter the list."""
    last, tau = np.float32(kth * scale), float(np.float32((kth - below) * scale))
    slack = find_slack(KeptEntries(np.arange(1), np.asarray([float(last)]), tau), np.asarray([last]), 1, 0.0)
    if slack > 0:
        assert np.float32(tau + np.nextafter(slack, 0.0)) < last


def test_slack_leaves_room_for_rounding() -> None:
    kept = KeptEntries(np.arange(3), np.asarray([8.0, 4.0, 2.0]), 1.0)
    slack = find_slack(kept, np.asarray([8.0, 4.0], np.float32), 2, 16.0)
    # Scores up to 16 are rounded by at most 2⁻²¹ each, a sum of two of them twice.
    assert 2.0**-20 <= 3.0 - slack < 1e-4
    assert find_slack(kept, np.asarray([8.0], np.float32), 2, 16.0) == -np.inf
    assert find_slack(kept._replace(tau=-np.inf), np.asarray([8.0], np.float32), 2, 16.0) == np.inf
