"""Cells return what was packed, and their quantised link weights stay close to the exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_model.bundle import BundleError
from lime_model.scoring.backends.native import kernel_words
from lime_model.scoring.cells import Cells, Shape, quantise_weights
from tests.host import HAS_NATIVE, WHY
from tests.lime_model.scoring.cases import make_case

pytestmark = pytest.mark.usefixtures("compiled_kernels")


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
