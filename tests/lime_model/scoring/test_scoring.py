"""One behavioural suite for every backend: exact lists, whatever the sizes, ties and tilings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lime_model.arrays import F32, Ints
from lime_model.bundle import Bundle, BundleError
from lime_model.config import MEMORY_FEATURES
from lime_model.measure.certificate import Certifier
from lime_model.rows.items import ItemEncoder
from lime_model.scoring import native
from lime_model.scoring.backends.backend import Backend
from lime_model.scoring.backends.choose import BackendError, choose_backend, make_backend
from lime_model.scoring.backends.fused import TritonBackend
from lime_model.scoring.backends.reference import ReferenceBackend
from lime_model.scoring.backends.tiled import TiledBackend, error_bound
from lime_model.scoring.bank import PackedBank
from lime_model.scoring.canonical import Rows, UserRow, Weights, publish
from lime_model.scoring.cells import Cells, Shape, Stats, quantise_weights
from lime_model.scoring.incremental.kept_entries import KeptEntries
from lime_model.scoring.incremental.night_changes import NightChanges, UnchangedUser, write_night_changes
from lime_model.scoring.incremental.subsets import CandidateSubset
from lime_model.scoring.native import ISAS, compile_for, why_not
from lime_model.scoring.native.backend import First, NativeBackend, kernel_words
from lime_model.scoring.queries import Memory, Query, TopK
from lime_model.scoring.shapes import ShapeMismatch
from lime_model.scoring.topk import DeviceFull, Engine
from tests.host import HAS_NATIVE, WHY
from tests.lime_model.toys import toy_catalogue, toy_config, toy_model

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # there in Triton's interpreter: conftest.py
BACKENDS: dict[str, Backend] = {
    "reference": ReferenceBackend(),
    "tiled": TiledBackend(),
    "tiled-tiny": TiledBackend(user_block=2, tile=3, stripe=5),
    "tiled-odd": TiledBackend(user_block=3, tile=7, stripe=7),
    "triton": TritonBackend(DEVICE, user_block=3, first=32, stripe=64, tile=16),
    "triton-odd": TritonBackend(DEVICE, user_block=2, first=7, stripe=9, tile=16),
    **(
        {
            "native": NativeBackend(),
            "native-quads": NativeBackend(isa="avx2-quads"),  # what VNNI computes, without VNNI
            "native-bf16": NativeBackend("bf16"),
            "native-bf16-emulated": NativeBackend(
                "bf16", isa="avx2"
            ),  # the same pass without its instruction
            "native-fp32": NativeBackend("fp32"),
        }
        if HAS_NATIVE
        else {}
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Every instruction set compiles here, also those that this processor does not run."""
    if HAS_NATIVE:
        assert {isa: compile_for(isa) for isa in (*ISAS, "avx2-quads")} == dict.fromkeys(
            (*ISAS, "avx2-quads"), ""
        )


def make_case(
    seed: int, users: int, candidates: int, links: int, hidden: int, dot: int, levels: int, scale: float
) -> tuple[Weights, list[Query], Rows]:
    """A random problem; few `levels` make many exact ties, a large `scale` makes rounding matter."""
    rng = np.random.default_rng(seed)
    weights = Weights.of(toy_model(toy_config(links=links, hidden=hidden, dot=dot), seed))

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return (np.round(rng.standard_normal(shape) * levels) / levels * scale).astype(np.float32)

    a = rng.integers(1, 5, (candidates, links)).astype(np.float64)
    bank = Rows(
        (a / a.sum(1, keepdims=True)).astype(np.float32) if candidates else a.astype(np.float32),
        draw(candidates, hidden), draw(candidates, dot), draw(candidates),
    )  # fmt: skip
    queries = []
    for _ in range(users):
        size = int(rng.integers(0, candidates // 2 + 1))
        rows = np.sort(rng.choice(candidates, size, replace=False)).astype(np.int64)
        memory = Memory(rows, draw(size, MEMORY_FEATURES), rng.random((2, size)) < 0.4)
        queries.append(Query(UserRow(draw(links, hidden), draw(dot)), memory))
    return weights, queries, bank


def cut(bank: Rows, cuts: list[int]) -> list[Cells]:
    """The candidates as shards that end at `cuts`; some may be empty."""
    ends = [*sorted(min(end, len(bank.beta)) for end in cuts), len(bank.beta)]
    return [Cells.pack(bank.take(np.arange(*pair))) for pair in pairwise([0, *ends])]


def brute_force(weights: Weights, user: Query, bank: Rows, k: int, policy: int = 0) -> TopK:
    """Score every candidate in turn, sort Python tuples."""
    features = dict(zip(user.memory.rows.tolist(), user.memory.features, strict=True))
    excluded = set(user.memory.rows[user.memory.excluded[policy]].tolist())
    scored = []
    for row in range(len(bank.beta)):
        if row not in excluded:
            one = bank.take(np.asarray([row]))
            z = weights.base(user.factors, one)
            if row in features:
                z = weights.remember(features[row][None], z)
            scored.append((-float(publish(z, one.beta)[0]), row, float(z[0])))
    best = sorted(scored)[:k]
    rows, scores, z = (
        np.asarray([row for _, row, _ in best], np.int64),
        [-s for s, _, _ in best],
        [z for *_, z in best],
    )
    return TopK(rows, np.asarray(scores, np.float32), np.asarray(z, np.float64))


def same(a: TopK, b: TopK) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


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
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000), candidates=st.integers(1, 60), levels=st.sampled_from([1, 3, 1000]),
    cuts=st.lists(st.integers(0, 60), max_size=2), share=st.floats(0, 1), at=st.integers(0, 59),
)  # fmt: skip
def test_a_part_gives_all_that_reach_a_floor_as_the_whole_bank_does(
    backend: str, seed: int, candidates: int, levels: int, cuts: list[int], share: float, at: int
) -> None:
    weights, queries, rows = make_case(seed, 2, candidates, 4, 5, 3, levels, 1.0)
    bank = PackedBank(cut(rows, cuts), pa.array(range(candidates)), None)
    chosen = np.flatnonzero(np.random.default_rng(seed).random(candidates) < share)
    part, engine = CandidateSubset.of(bank, chosen), Engine(weights, BACKENDS[backend])
    for policy in range(2):
        whole = [brute_force(weights, query, rows, candidates, policy) for query in queries]
        some = [float(each.scores[at % len(each.scores)]) if len(each.scores) else 0.0 for each in whole]
        for floors in ([-np.inf] * len(queries), some):
            found = part.find_reaching(engine, queries, floors, policy)
            for mine, each, floor in zip(found, whole, floors, strict=True):
                expected = each.take(np.isin(each.rows, chosen) & (each.scores >= floor))
                assert same(mine.best(candidates), expected)
    assert bank.beta().tobytes() == rows.beta.tobytes()


@pytest.mark.parametrize(
    ("candidates", "changed", "advances"), [(40, 9, True), (40, 10, False), (0, 0, False)]
)
def test_when_a_quarter_of_the_candidates_changed_or_none_is_left_nobody_is_advanced(
    tmp_path: Path, candidates: int, changed: int, advances: bool
) -> None:
    weights, queries, rows = make_case(0, 1, candidates, 4, 5, 3, 1000, 1.0)
    bank = PackedBank(cut(rows, []) if candidates else [], pa.array(range(candidates), pa.int64()), None)
    bias = pa.array(rows.beta)
    since = pa.array([2 if row < changed else 0 for row in range(candidates)], pa.int64())
    table = pa.table({"item_id": bank.item_ids, "since": since, "reference": bias, "bias_0": bias})
    write_night_changes(tmp_path / "tonight.arrow", table, 2, {1: "bias_0"})
    kept = KeptEntries(np.arange(min(5, candidates)), np.zeros(min(5, candidates)), -np.inf)
    user = UnchangedUser(queries[0], kept, 1, np.zeros(0, np.int64))
    ((answer, pairs),) = NightChanges(tmp_path / "tonight.arrow", bank).advance_users(
        [user], 3, Engine(weights, ReferenceBackend())
    )
    assert (answer is not None, pairs) == (advances, changed if advances else 0)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 1e3]), outlier=st.booleans())
def test_the_error_bound_holds(seed: int, scale: float, outlier: bool) -> None:
    weights, queries, bank = make_case(seed, 3, 50, 5, 6, 4, 1000, scale)
    if outlier:  # one huge column, where cancellation is worst
        queries[0].factors.g[:, 0] *= 1e4
        bank.b[:, 0] *= -1e4
    bound = error_bound(weights, queries, Stats.of(bank))
    for query, epsilon in zip(queries, bound, strict=True):
        a, b, d, beta = bank
        g, e = query.factors
        hidden = np.maximum(a @ g + b, 0)  # fp32 throughout, in BLAS order
        approx = hidden @ weights.out.astype(np.float32) + (d @ e + beta)
        published = publish(weights.base(query.factors, bank), bank.beta)
        assert np.abs(approx.astype(np.float64) - published).max() <= epsilon


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_scores_equal_go_by_row(backend: str) -> None:
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


def every_backend() -> list[Backend]:
    """All of them, the native one in every pass on every instruction set that this processor runs."""
    runnable = [isa for isa in (*ISAS, "avx2-quads") if not why_not(isa)]
    compiled = [NativeBackend(first, isa) for isa in runnable for first in get_args(First)]
    return [*compiled, BACKENDS["tiled"], BACKENDS["tiled-tiny"], BACKENDS["triton"]]


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


@pytest.mark.skipif(not HAS_NATIVE, reason=WHY)
def test_a_processor_without_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, the kernel is refused by name, on driver and workers; `auto` says why it took torch."""
    monkeypatch.setattr(native, "processor_level", lambda: 0)
    native.why_not.cache_clear()
    try:
        with pytest.raises(BackendError, match=r"'native' was asked for: this processor has no avx2"):
            choose_backend("native", "cpu", cuda=torch.cuda.is_available())
        with pytest.raises(
            BackendError, match="'native-bf16' was asked for: this processor has no avx512-bf16"
        ):
            choose_backend("native-bf16", "cpu", cuda=torch.cuda.is_available())
        with pytest.raises(BackendError, match="this host can't run it: this processor has no avx2"):
            make_backend("native", "cpu")
        choice = choose_backend("auto", "cpu", cuda=torch.cuda.is_available())
        assert choice.backend == "tiled"
        assert "no native kernel: this processor has no avx2" in choice.why
    finally:
        native.why_not.cache_clear()


class Narrow(TiledBackend):
    """A device with room for so many users at once."""

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


@pytest.mark.skipif(not HAS_NATIVE, reason=WHY)
def test_a_damaged_kernel_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_NATIVE", str(tmp_path))
    native._folder.cache_clear()
    try:
        assert compile_for("avx2") == ""
        assert why_not("avx2") == ""
        library = native.kernel_path("avx2")
        half = library.read_bytes()[:3000]
        library.unlink()  # this process has mapped the file
        library.write_bytes(half)
        native.why_not.cache_clear()
        assert "is damaged; run" in why_not("avx2")
        assert choose_backend("auto", "cpu", cuda=torch.cuda.is_available()).backend == "tiled"
        assert compile_for("avx2") == ""  # which makes it again
        assert why_not("avx2") == ""
    finally:
        native._folder.cache_clear()
        for answer in (native.why_not, native.best_isa, native.processor_level):
            answer.cache_clear()


def test_a_missing_device_or_kernel_fails_and_auto_says_why() -> None:
    choice = choose_backend("auto", "cpu", cuda=torch.cuda.is_available())
    assert choice.backend == ("native" if HAS_NATIVE else "tiled")
    assert "CPU was asked for" in choice.why
    make_backend(choice.backend, "cpu")
    if not torch.cuda.is_available():
        assert "no CUDA device" in choose_backend("auto", "auto", cuda=torch.cuda.is_available()).why
        with pytest.raises(RuntimeError, match="use device: auto or cpu"):
            choose_backend("tiled", "cuda", cuda=torch.cuda.is_available())
    with pytest.raises(BackendError, match="use one of auto, reference, tiled, native, native-bf16"):
        choose_backend("fast", "auto", cuda=torch.cuda.is_available())


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), links=st.integers(1, 40), sharp=st.sampled_from([0.1, 1.0, 10.0]))
def test_quantised_link_weights_sum_to_255_and_stay_within_a_step(
    seed: int, links: int, sharp: float
) -> None:
    logits = np.random.default_rng(seed).standard_normal((20, links)) * sharp
    a = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = quantise_weights(a.astype(np.float32)).astype(np.int64)
    assert (q.sum(1) == 255).all()
    assert np.abs(q / 255 - a).max() <= 1 / 255 + 1e-6


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


@pytest.mark.skipif(not HAS_NATIVE, reason=WHY)
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_canonical_scores_in_cpp_are_those_of_numpy_to_the_bit(seed: int, scale: float) -> None:
    weights, queries, bank = make_case(seed, 2, 70, 9, 13, 5, 1000, scale)
    cells, rows = Cells.pack(bank), np.random.default_rng(seed).permutation(70).astype(np.int64)
    for query in queries:
        ours = NativeBackend().base(weights, query, cells, rows)
        assert ours.tobytes() == weights.base(query.factors, bank.take(rows)).tobytes()


@pytest.mark.skipif(not HAS_NATIVE, reason=WHY)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_kernel_and_packer_agree_on_a_cell(links: int, hidden: int, dot: int) -> None:
    shape = Shape(links, hidden, dot)
    assert kernel_words(shape) == shape.words


def test_cells_give_back_what_was_packed() -> None:
    _, _, bank = make_case(2, 1, 70, 5, 7, 3, 1000, 1.0)
    cells = Cells.pack(bank)
    for part, whole in zip(cells.slice(33, 70), bank, strict=True):
        assert np.array_equal(part, whole[33:70])
    rows = np.asarray([69, 0, 31, 32, 32])
    for part, whole in zip(cells.take(rows), bank, strict=True):
        assert np.array_equal(part, whole[rows])
    with pytest.raises(BundleError, match="sum to 1"):
        Cells.pack(bank._replace(a=bank.a * 2))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_score_that_is_not_finite_fails_the_certificate(bad: float) -> None:
    catalogue, of_items, of_users = toy_catalogue()
    bundle = Bundle(toy_model(toy_config()), catalogue, of_items, of_users, {}, "")
    items = len(catalogue.item_ids)
    inputs, _ = ItemEncoder(bundle).read(catalogue.item_ids, {})
    certifier = Certifier(bundle, inputs, np.zeros(items), np.ones(items, np.bool_))
    scores, nothing = np.linspace(1, 0, items), np.zeros(0, np.int64)
    listed = scores[:3].astype(np.float32)
    assert certifier.check(scores, nothing, np.arange(3), listed, 3, 1e-4).fault == ""
    listed[0] = bad
    assert "not finite" in certifier.check(scores, nothing, np.arange(3), listed, 3, 1e-4).fault
