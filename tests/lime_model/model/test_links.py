"""The link state is a commutative monoid, and it does not age."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lime_model.model.links import (
    LinkAttention,
    Links,
    finish_softmax,
    merge_softmax,
    reduce_pools,
    reduce_softmax,
)
from tests.lime_model.toys import assert_same_gradients, toy_config


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 1000), st.floats(-200, 200))
def test_pieces_merge_into_the_whole_in_any_order(sizes: list[int], seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, sum(sizes), generator=generator, dtype=torch.float64) * 20 + shift
    values = torch.randn(sum(sizes), 4, generator=generator, dtype=torch.float64)
    whole = finish_softmax(reduce_softmax(logits, values))
    states = [reduce_softmax(a, b) for a, b in zip(logits.split(sizes, 1), values.split(sizes), strict=True)]
    for order in (states, states[::-1]):
        merged = order[0]
        for state in order[1:]:
            merged = merge_softmax(merged, state)
        torch.testing.assert_close(finish_softmax(merged), whole, rtol=1e-12, atol=1e-12)
    if sum(sizes):
        torch.testing.assert_close(whole, torch.softmax(logits, 1) @ values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cuts", [[9], [4, 5], [0, 1, 8], [1] * 9])
def test_merged_states_have_the_gradients_of_whole_ones(cuts: list[int]) -> None:
    """Links and pools have equal gradients for keys, values, decay and events; some events do not count."""
    torch.manual_seed(2)
    attention = LinkAttention(toy_config()).double()
    queries, events = torch.randn(2, 5, 8).double(), torch.randn(2, 9, 8).double().requires_grad_()
    days, keep = torch.rand(2, 9).double() * -300, torch.ones(2, 9, dtype=torch.bool)
    keep[1, :5] = False
    pieces = list(zip(*(x.split(cuts, 1) for x in (events, days, keep)), strict=True))
    for whole, states, finish in (
        (
            attention.finish(attention.reduce(queries, events, days, keep)),
            [attention.reduce(queries, *piece) for piece in pieces],
            attention.finish,
        ),
        (
            finish_softmax(reduce_pools(events, days, keep, (90.0, 21.0))),
            [reduce_pools(*piece, (90.0, 21.0)) for piece in pieces],
            finish_softmax,
        ),
    ):
        merged = finish(reduce(merge_softmax, states))
        torch.testing.assert_close(merged, whole, rtol=1e-12, atol=1e-12)
        assert_same_gradients(merged, whole, [events, *attention.parameters()])


def test_an_empty_history_is_zero() -> None:
    attention = LinkAttention(toy_config())
    nothing = torch.zeros(2, 0, 8), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)
    hidden = torch.randn(2, 3, 8), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    for history in (nothing, hidden):
        state = attention.finish(attention.reduce(torch.randn(2, 5, 8), *history))
        assert torch.equal(state, torch.zeros(2, 5, 8))
        assert torch.equal(finish_softmax(reduce_pools(*history, (90.0, 21.0))), torch.zeros(2, 3, 8))


def test_moving_now_changes_nothing() -> None:
    attention = LinkAttention(toy_config()).double()
    queries, events = torch.randn(2, 5, 8).double(), torch.randn(2, 9, 8).double()
    days, keep = torch.rand(2, 9).double() * -300, torch.rand(2, 9) > 0.2
    now = attention.finish(attention.reduce(queries, events, days, keep))
    later = attention.finish(attention.reduce(queries, events, days - 400.0, keep))
    torch.testing.assert_close(now, later, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(now, attention.finish(attention.reduce(queries, events, days * 30, keep)))


def test_pools_are_decayed_means() -> None:
    events = torch.tensor([[[1.0], [3.0], [9.0]]], dtype=torch.float64)
    days = torch.tensor([[-21.0, 0.0, -5.0]], dtype=torch.float64)
    keep = torch.tensor([[True, True, False]])
    pools = finish_softmax(reduce_pools(events, days, keep, (21.0,)))[0, :, 0]
    e = float(torch.exp(torch.tensor(-1.0)))
    torch.testing.assert_close(
        pools, torch.tensor([(e + 3) / (e + 1), 2.0], dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_link_weights_sum_to_one() -> None:
    weights = Links(toy_config()).weights(torch.randn(50, 8) * 30)
    torch.testing.assert_close(weights.sum(1), torch.ones(50))
    assert bool((weights >= 0).all())
