"""Links, and the LIME-MHA link state as a commutative monoid.

L learned *links* read each event of a user once, through softmax attention. The attention is kept as
`(max, Σ exp, Σ exp·value)` per head and link, so states over disjoint sets of events merge exactly, and no
order or split changes the result (the online softmax of arXiv:1805.02867). When "now" moves, the recency
logit `λ·t_event` shifts all logits of a user by the same amount, which cancels in the softmax: states do not
age.

Letters: U users, N events, C candidates, L links, H heads, D width, W = D / H, X user width, J pools, R rows
of a softmax sum (links or pools).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.config import ModelConfig


class SoftmaxSum(NamedTuple):
    """A softmax-weighted mean under construction.

    `top` and `weight` are `[..., R]`, and `total` is `[..., R, W]`. `top` is a reference logit, any value
    near the largest; `weight` is Σ exp(logit - top), and `total` is Σ exp(logit - top)·value. An empty state
    has weight 0.
    """

    top: Tensor
    weight: Tensor
    total: Tensor


def reduce_softmax(logits: Tensor, values: Tensor) -> SoftmaxSum:
    """Reduce events into one state.

    Args:
        logits: `[..., R, N]`, `-inf` for events that do not count.
        values: `[..., N, W]`.
    """
    if logits.shape[-1] == 0:
        top = logits.new_full(logits.shape[:-1], -torch.inf)
        return SoftmaxSum(top, torch.zeros_like(top), values.new_zeros(*top.shape, values.shape[-1]))
    top = logits.amax(-1)
    scaled = torch.exp(logits - torch.nan_to_num(top, neginf=0.0).unsqueeze(-1))  # [..., R, N]
    return SoftmaxSum(top, scaled.sum(-1), scaled @ values)


def merge_softmax(a: SoftmaxSum, b: SoftmaxSum) -> SoftmaxSum:
    """Merge the states of two disjoint sets of events, in O(R·W)."""
    # Each side's sums are relative to its own top. Multiplying them by exp(own top - new top), which is at
    # most 1, makes both relative to the larger top, and then they add up: no exponential can overflow. The
    # operation is associative and commutative, and an empty state (top -inf, weight 0) is neutral; with two
    # empty states the reference must be finite, as inf - inf is NaN.
    top = torch.maximum(a.top, b.top)
    reference = torch.nan_to_num(top, neginf=0.0)
    left, right = torch.exp(a.top - reference), torch.exp(b.top - reference)
    return SoftmaxSum(
        top,
        a.weight * left + b.weight * right,
        a.total * left.unsqueeze(-1) + b.total * right.unsqueeze(-1),
    )


def finish_softmax(state: SoftmaxSum) -> Tensor:
    """Return the weighted mean `[..., R, W]`; it is zero, and not NaN, where nothing was reduced."""
    weight = state.weight.unsqueeze(-1)
    return torch.where(weight > 0, state.total / weight.clamp_min(1e-30), torch.zeros_like(state.total))


class Links(nn.Module):
    """Raw links R and the contextual links Q_u = R + MLP(R, x_u)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(config.links, config.width))
        self.mix = nn.Sequential(
            nn.Linear(config.width + config.user_width, config.width),
            nn.ReLU(),
            nn.Linear(config.width, config.width),
        )

    def contextual(self, user: Tensor) -> Tensor:
        """Compute Q_u `[U, L, D]` from x_u `[U, X]`."""
        links = self.raw.expand(user.shape[0], -1, -1)
        context = user.unsqueeze(1).expand(-1, links.shape[1], -1)
        mixed: Tensor = self.mix(torch.cat([links, context], -1))
        return links + mixed

    def weights(self, items: Tensor) -> Tensor:
        """Compute link weights A_c = softmax(T_c Rᵀ / √D) `[C, L]` from T `[C, D]`; no user enters."""
        return torch.softmax(items @ self.raw.T / self.raw.shape[1] ** 0.5, -1)


class LinkAttention(nn.Module):
    """LIME-MHA: links read a history by softmax attention with learned exponential recency."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.decay = nn.Parameter(torch.linspace(-5.0, -3.0, config.heads))  # λ = softplus, per day

    def reduce(self, queries: Tensor, events: Tensor, days: Tensor, keep: Tensor) -> SoftmaxSum:
        """Reduce events into one state, whose rows are the links within a head.

        Args:
            queries: Q_u `[U, L, D]`.
            events: event embeddings `[U, N, D]`.
            days: event time in days, from any origin fixed per user `[U, N]`.
            keep: which events count `[U, N]`.

        Returns:
            `top`, `weight` `[U, H, L]`; `total` `[U, H, L, W]`.
        """
        return reduce_softmax(*self.weigh(queries, events, days, keep))

    def weigh(self, queries: Tensor, events: Tensor, days: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits `[U, H, L, N]`, `-inf` where an event does not count, and values `[U, H, N, W]`.

        Args:
            queries: Q_u `[U, L, D]`.
            events: event embeddings `[U, N, D]`.
            days: event time in days `[U, N]`.
            keep: which events count `[U, N]`.
        """
        q, k, v = (self._split(x) for x in (queries, self.key(events), self.value(events)))
        logits = q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5  # [U, H, L, N]
        recency = F.softplus(self.decay).view(1, -1, 1, 1) * days[:, None, None, :]
        return (logits + recency).masked_fill(~keep[:, None, None, :], -torch.inf), v

    def finish(self, state: SoftmaxSum) -> Tensor:
        """Return P_u `[U, L, D]`, the concatenated heads."""
        return finish_softmax(state).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        """Split `[U, N, D]` into heads `[U, H, N, W]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def reduce_pools(events: Tensor, days: Tensor, keep: Tensor, pool_days: tuple[float, ...]) -> SoftmaxSum:
    """Reduce events into pools: means with an exponential decay each, and a flat mean last.

    A pool is a link without a content key, so it is the same monoid: rows are pools `[U, J]` and totals
    `[U, J, D]`.

    Args:
        events: event embeddings `[U, N, D]`.
        days: event time in days `[U, N]`.
        keep: which events count `[U, N]`.
        pool_days: decay of each pool but the flat one.
    """
    return reduce_softmax(weigh_pools(days, keep, pool_days), events)


def weigh_pools(days: Tensor, keep: Tensor, pool_days: tuple[float, ...]) -> Tensor:
    """Compute the logits `[U, J, N]` of the events in the pools, `-inf` where an event does not count.

    Args:
        days: event time in days `[U, N]`.
        keep: which events count `[U, N]`.
        pool_days: decay of each pool but the flat one.
    """
    rates = torch.tensor([1.0 / d for d in pool_days] + [0.0], dtype=days.dtype, device=days.device)
    logits = rates[:, None] * days[:, None, :]  # [U, J, N]
    return logits.masked_fill(~keep[:, None, :], -torch.inf)
