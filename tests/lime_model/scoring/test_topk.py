"""Every backend returns the same exact lists, whatever the sizes, ties, tilings and magnitudes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lime_model.arrays import F32, Ints
from lime_model.bundle import BundleError
from lime_model.config import MEMORY_FEATURES
from lime_model.scoring.backends.reference import ReferenceBackend
from lime_model.scoring.backends.tiled import TiledBackend
from lime_model.scoring.canonical import Rows, UserRow, Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Memory, Query
from lime_model.scoring.shapes import ShapeMismatch
from lime_model.scoring.topk import DeviceFull, Engine
from tests.lime_model.scoring.cases import BACKENDS, brute_force, cut, every_backend, make_case, same

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000), users=st.integers(1, 5), candidates=st.integers(0, 40),
    links=st.integers(1, 6), hidden=st.integers(1, 6), dot=st.integers(1, 5), k=st.integers(1, 45),
    levels=st.sampled_from([1, 3, 1000]), scale=st.sampled_from([1e-3, 1.0, 300.0]),
    cuts=st.lists(st.integers(0, 40), max_size=2),
)  # fmt: skip
def test_lists_are_exact_to_the_bit(
    backend: str, seed: int, users: int, candidates: int, links: int, hidden: int, dot: int, k: int,
    levels: int, scale: float, cuts: list[int],
) -> None:  # fmt: skip
    weights, queries, bank = make_case(seed, users, candidates, links, hidden, dot, levels, scale)
    lists = Engine(weights, BACKENDS[backend]).score_top_k(queries, cut(bank, cuts), k)
    for query, by_policy in zip(queries, lists, strict=True):
        for policy, found in enumerate(by_policy):
            assert len(found.rows) == min(k, candidates - int(query.memory.excluded[policy].sum()))
            assert same(found, brute_force(weights, query, bank, k, policy))


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_scores_are_ordered_by_row(backend: str) -> None:
    weights, queries, bank = make_case(1, 2, 30, 3, 3, 2, 1, 1.0)
    flat = Rows(*(np.repeat(x[:1], 30, 0) for x in bank))
    nobody = [Query(q.factors, Memory.empty(MEMORY_FEATURES)) for q in queries]
    for (found,) in Engine(weights, BACKENDS[backend]).score_top_k(nobody, cut(flat, [9, 9]), 7):
        assert found.rows.tolist() == list(range(7))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_near_tie_at_the_threshold_is_kept(backend: str) -> None:
    """Candidates one fp32 step apart: an fp32 filter alone would confuse them."""
    weights, queries, bank = make_case(4, 1, 64, 4, 5, 3, 1000, 1.0)
    near = Rows(*(np.repeat(x[:1], 64, 0) for x in bank))
    beta = near.beta[0] + np.spacing(np.float32(abs(near.beta[0]) + 1)) * np.random.default_rng(
        0
    ).permutation(64)
    near = near._replace(beta=beta.astype(np.float32))
    query = Query(queries[0].factors, Memory.empty(MEMORY_FEATURES))
    [[found]] = Engine(weights, BACKENDS[backend]).score_top_k([query], cut(near, [20]), 10)
    assert same(found, brute_force(weights, query, near, 10))


def test_everything_excluded_gives_an_empty_list() -> None:
    weights, queries, bank = make_case(1, 1, 9, 3, 3, 2, 5, 1.0)
    memory = Memory(np.arange(9), np.zeros((9, MEMORY_FEATURES), np.float32), np.ones((1, 9), np.bool_))
    query = Query(queries[0].factors, memory)
    [[found]] = Engine(weights, TiledBackend()).score_top_k([query], cut(bank, [4]), 5)
    assert len(found.rows) == 0


def test_bad_shapes_are_refused_by_name() -> None:
    weights, queries, bank = make_case(1, 1, 9, 3, 3, 2, 5, 1.0)
    cells, wider = Cells.pack(bank), bank._replace(a=np.full((9, 4), 0.25, np.float32))
    with pytest.raises(ValueError, match="k is 0"):
        Engine(weights, ReferenceBackend()).score_top_k(queries, [cells], 0)
    with pytest.raises(ValueError, match=r"\(4, 3, 2\).*\(3, 3, 2\).*build_candidate_bank"):
        Engine(weights, ReferenceBackend()).score_top_k(queries, [Cells.pack(wider)], 5)
    good, (g, e) = queries[0], queries[0].factors
    late = good.memory._replace(rows=np.asarray([9]), features=np.zeros((1, MEMORY_FEATURES), np.float32))
    for bad, message in (
        (good._replace(factors=UserRow(g[:2], e)), r"user 1 are \(\(2, 3\).*build_link_states"),
        (good._replace(factors=UserRow(g, e[:1])), r"user 1 are .*\(1,\).*build_link_states"),
        (good._replace(factors=UserRow(np.full_like(g, np.inf), e)), "user 1 hold NaN or infinity"),
        (good._replace(memory=late), "memory of user 1 must be ascending rows below 9"),
    ):
        with pytest.raises(ShapeMismatch, match=message):
            Engine(weights, ReferenceBackend()).score_top_k([good, bad], [cells], 5)
    with pytest.raises(BundleError, match="hold NaN or infinity"):
        Cells.pack(bank._replace(d=bank.d * np.float32(np.nan)))


@settings(max_examples=120)
@given(
    seed=st.integers(0, 10_000),
    sides=st.tuples(*[st.sampled_from([1e-44, 1e-42, 1e-38, 1e-30, 1e-22, 1.0, 1e10, 1e18])] * 4),
    beta=st.sampled_from([0.0, 1e-44, 1e-30, 1.0]),
    out=st.sampled_from([1e-45, 1e-20, 1.0, 1e8, 1e25, 1e35, 1e40]),
    lone=st.booleans(),  # one hidden unit has such a weight and such links, the others are ordinary
)
@example(seed=1, sides=(1e-44, 1e-44, 1e-44, 1e-44), beta=0.0, out=1e25, lone=False)
@example(seed=2, sides=(1e-44, 1e-30, 1e-44, 1e-22), beta=0.0, out=1e35, lone=True)
@example(seed=3, sides=(1e-30, 1e-30, 1e-30, 1e-30), beta=0.0, out=1e40, lone=False)
def test_lists_are_exact_where_fp32_leaves_its_range(
    seed: int, sides: tuple[float, ...], beta: float, out: float, lone: bool
) -> None:
    weights, queries, bank = make_case(seed, 3, 150, 5, 7, 3, 1000, 1.0)
    units = slice(3, 4) if lone else slice(None)
    weights.out[units] *= out
    b, d, g, e = (np.float32(side) for side in sides)
    bank.b[:, units] *= b
    bank = bank._replace(d=bank.d * d, beta=bank.beta * np.float32(beta))
    none = Memory.empty(MEMORY_FEATURES)
    for query in queries:
        query.factors.g[:, units] *= g
    queries = [Query(UserRow(q.factors.g, q.factors.e * e), none) for q in queries]
    cells = [Cells.pack(bank)]
    expected = Engine(weights, ReferenceBackend()).score_top_k(queries, cells, 9)
    for backend in every_backend():
        found = Engine(weights, backend).score_top_k(queries, cells, 9)
        for one, other in zip(chain(*found), chain(*expected), strict=True):
            assert same(one, other), backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [2**31 - 1, 2**32, 2**32 + 5])
def test_a_k_beyond_all_candidates_lists_them_all(backend: str, k: int) -> None:
    weights, queries, bank = make_case(3, 1, 70, 3, 4, 2, 5, 1.0)
    query = queries[0]._replace(memory=Memory.empty(MEMORY_FEATURES))
    ((found,),) = Engine(weights, BACKENDS[backend]).score_top_k([query], [Cells.pack(bank)], k)
    assert len(found.rows) == 70


class Narrow(TiledBackend):
    """A device that has room for `room` users at once."""

    room = 2

    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        if len(users) > self.room:
            raise torch.OutOfMemoryError(f"tried to hold {len(users)} users")
        return super().keep(weights, users, candidates, seeds, k)


def test_a_block_that_a_device_cannot_hold_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, queries, bank = make_case(5, 7, 60, 3, 4, 2, 1000, 1.0)
    cells = cut(bank, [20])
    whole = Engine(weights, TiledBackend()).score_top_k(queries, cells, 9)
    halved = Engine(weights, Narrow()).score_in_halves(queries, cells, 9)
    assert len(halved) == len(queries)
    assert all(same(*pair) for pair in zip(chain(*whole), chain(*halved), strict=True))
    monkeypatch.setattr(Narrow, "room", 0)
    with pytest.raises(DeviceFull, match="no memory for one user over 60 candidates: tried to hold 1 users"):
        Engine(weights, Narrow()).score_in_halves(queries, cells, 9)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000), links=st.integers(1, 40), hidden=st.integers(1, 70), dot=st.integers(1, 9),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4]), lopsided=st.sampled_from([None, "g", "b", "w"]),
)  # fmt: skip
def test_kernels_keep_every_list_at_real_sizes(
    seed: int, links: int, hidden: int, dot: int, scale: float, lopsided: str | None
) -> None:
    """Sizes over several cells and vectors; one outlier column is the worst case of int8 and fp16 steps."""
    weights, queries, bank = make_case(seed, 3, 150, links, hidden, dot, 1000, scale)
    if lopsided == "g":
        queries[0].factors.g[:, 0] *= 1e4
    elif lopsided == "b":
        bank.b[:, hidden // 2] *= 1e4
    elif lopsided == "w":
        weights.out[-1] *= 1e4
    cells = cut(bank, [70])
    expected = Engine(weights, ReferenceBackend()).score_top_k(queries, cells, 9)
    for backend in every_backend():
        found = Engine(weights, backend).score_top_k(queries, cells, 9)
        for one, other in zip(chain(*found), chain(*expected), strict=True):
            assert same(one, other)
