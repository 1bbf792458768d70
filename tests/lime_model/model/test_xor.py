"""LIME-XOR equals the masked dense HSTU form in values and gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lime_model.model.xor import AGE_BUCKETS, XorBlock, XorStack, age_bucket
from tests.lime_model.toys import toy_config


def dense_block(block: XorBlock, links: Tensor, events: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """One HSTU block over [links; events] with (L+N)² scores, kept where exactly one side is a link."""
    x = torch.cat([links, events], 1)
    u, q, k, v = F.silu(block.project(block.norm(x))).chunk(4, -1)
    is_link = torch.arange(x.shape[1]) < links.shape[1]
    live = torch.cat([torch.ones(len(x), links.shape[1], dtype=torch.bool), keep], 1)
    mask = (is_link[:, None] ^ is_link[None, :]) & live[:, None, :]  # [B, L+N, L+N]
    scores = F.silu(q @ k.transpose(1, 2)) * mask / mask.sum(-1, keepdim=True).clamp_min(1)
    out = x + block.out(block.attended_norm(scores @ v) * u)
    return out[:, : links.shape[1]], out[:, links.shape[1] :]


def test_equals_the_masked_dense_form_with_gradients() -> None:
    torch.manual_seed(0)
    stack = XorStack(toy_config("lime-xor")).double()
    queries, events = torch.randn(3, 5, 8).double(), torch.randn(3, 7, 8).double()
    days = torch.rand(3, 7).double() * -90
    keep = torch.ones(3, 7, dtype=torch.bool)
    keep[1, :4] = False
    inputs = [queries.requires_grad_(), events.requires_grad_()]
    fast = stack(queries, events, days, keep)
    links, rows = queries, events + stack.age(age_bucket(days, keep))
    for block in stack.blocks:
        assert isinstance(block, XorBlock)
        links, rows = dense_block(block, links, rows, keep)
    torch.testing.assert_close(fast, links, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(fast)
    for mine, theirs in zip(
        torch.autograd.grad((fast * weights).sum(), [*inputs, *stack.parameters()], allow_unused=True),
        torch.autograd.grad((links * weights).sum(), [*inputs, *stack.parameters()], allow_unused=True),
        strict=True,
    ):
        if mine is None or theirs is None:  # no output depends on the events of the last block
            assert mine is None or not mine.any()
            assert theirs is None or not theirs.any()
        else:
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_padding_does_not_count() -> None:
    stack = XorStack(toy_config("lime-xor")).double()
    queries, events, days = (
        torch.randn(1, 5, 8).double(),
        torch.randn(1, 6, 8).double(),
        torch.rand(1, 6).double(),
    )
    keep = torch.tensor([[False, False, True, True, True, True]])
    torch.testing.assert_close(
        stack(queries, events, days, keep), stack(queries, events[:, 2:], days[:, 2:], keep[:, 2:])
    )


def test_an_empty_history_is_zero() -> None:
    stack = XorStack(toy_config("lime-xor"))
    queries = torch.randn(2, 5, 8)
    nothing = torch.zeros(2, 0, 8), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)
    hidden = torch.randn(2, 3, 8), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    for history in (nothing, hidden):
        assert torch.equal(stack(queries, *history), torch.zeros_like(queries))


def test_ages_count_from_the_users_own_last_event() -> None:
    days, keep = torch.tensor([[-400.0, -3.0, -1.0, 0.0]]), torch.tensor([[True, True, True, False]])
    assert age_bucket(days, keep)[0, :3].tolist() == [8, 1, 0]
    assert torch.equal(age_bucket(days - 1e5, keep)[0, :3], age_bucket(days, keep)[0, :3])
    assert (
        int(age_bucket(torch.tensor([[-1e9, 0.0]]), torch.ones(1, 2, dtype=torch.bool)).max())
        == AGE_BUCKETS - 1
    )
