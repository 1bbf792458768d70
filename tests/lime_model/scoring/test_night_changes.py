"""An incremental night: a subset of the bank gives what the whole bank gives, and too many changes end it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_model.scoring.backends.reference import ReferenceBackend
from lime_model.scoring.bank import PackedBank
from lime_model.scoring.incremental.kept_entries import KeptEntries
from lime_model.scoring.incremental.night_changes import NightChanges, UnchangedUser, write_night_changes
from lime_model.scoring.incremental.subsets import CandidateSubset
from lime_model.scoring.topk import Engine
from tests.lime_model.scoring.cases import BACKENDS, brute_force, cut, make_case, same

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000), candidates=st.integers(1, 60), levels=st.sampled_from([1, 3, 1000]),
    cuts=st.lists(st.integers(0, 60), max_size=2), share=st.floats(0, 1), at=st.integers(0, 59),
)  # fmt: skip
def test_a_subset_gives_all_that_reach_a_floor_as_the_whole_bank_does(
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
def test_no_user_is_advanced_when_a_quarter_of_the_candidates_changed_or_none_is_left(
    tmp_path: Path, candidates: int, changed: int, advances: bool
) -> None:
    weights, queries, rows = make_case(0, 1, candidates, 4, 5, 3, 1000, 1.0)
    bank = PackedBank(cut(rows, []) if candidates else [], pa.array(range(candidates), pa.int64()), None)
    bias = pa.array(rows.beta)
    since = pa.array([2 if row < changed else 0 for row in range(candidates)], pa.int64())
    table = pa.table({"item_id": bank.item_ids, "since": since, "reference": bias, "bias_0": bias})
    write_night_changes(tmp_path / "night_changes.arrow", table, 2, {1: "bias_0"})
    kept = KeptEntries(np.arange(min(5, candidates)), np.zeros(min(5, candidates)), -np.inf)
    user = UnchangedUser(queries[0], kept, 1, np.zeros(0, np.int64))
    ((answer, pairs),) = NightChanges(tmp_path / "night_changes.arrow", bank).advance_users(
        [user], 3, Engine(weights, ReferenceBackend())
    )
    assert (answer is not None, pairs) == (advances, changed if advances else 0)
