"""Links, and the LIME-MHA link state as a commutative monoid.

A user's events are read by L learned *links* through softmax attention, once. The
attention is kept as `(max, Σ exp, Σ exp·value)` per head and link, so states over
disjoint sets of events merge exactly and no order or split changes the answer
(the online softmax of arXiv:1805.02867). A recency logit `λ·t_event` shifts every
logit of a user alike as "now" moves, so it cancels: states do not age.

Letters: B users, N events, L links, H heads, D width, W = D / H, X user width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.config import ModelConfig


class SoftmaxSum(NamedTuple):
    """A softmax-weighted mean under construction.

    `top` and `weight` are `[..., R]` for R rows (links or pools), `total` is
    `[..., R, W]`. `top` is a reference logit, any value near the largest; `weight` is
    Σ exp(logit - top), `total` is Σ exp(logit - top)·value. Empty: weight 0.
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
    """The state over the union of two disjoint sets of events, in O(R·W)."""
    top = torch.maximum(a.top, b.top)
    reference = torch.nan_to_num(top, neginf=0.0)
    left, right = torch.exp(a.top - reference), torch.exp(b.top - reference)
    return SoftmaxSum(
        top,
        a.weight * left + b.weight * right,
        a.total * left.unsqueeze(-1) + b.total * right.unsqueeze(-1),
    )


def finish_softmax(state: SoftmaxSum) -> Tensor:
    """The weighted mean `[..., R, W]`; zero, never NaN, where nothing was reduced."""
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
        """Q_u `[B, L, D]` from x_u `[B, X]`."""
        links = self.raw.expand(user.shape[0], -1, -1)
        context = user.unsqueeze(1).expand(-1, links.shape[1], -1)
        mixed: Tensor = self.mix(torch.cat([links, context], -1))
        return links + mixed

    def weights(self, items: Tensor) -> Tensor:
        """Link weights A_c = softmax(T_c Rᵀ / √D) `[C, L]` from T `[C, D]`; they depend on no user."""
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
        """State over events, rows being links within a head.

        Args:
            queries: Q_u `[B, L, D]`.
            events: event embeddings `[B, N, D]`.
            days: event time in days, from any origin fixed per user `[B, N]`.
            keep: which events count `[B, N]`.

        Returns:
            `top`, `weight` `[B, H, L]`; `total` `[B, H, L, W]`.
        """
        return reduce_softmax(*self.weigh(queries, events, days, keep))

    def weigh(self, queries: Tensor, events: Tensor, days: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, H, L, N]`, `-inf` where an event does not count, and values `[B, H, N, W]`."""
        q, k, v = (self._split(x) for x in (queries, self.key(events), self.value(events)))
        logits = q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5  # [B, H, L, N]
        recency = F.softplus(self.decay).view(1, -1, 1, 1) * days[:, None, None, :]
        return (logits + recency).masked_fill(~keep[:, None, None, :], -torch.inf), v

    def finish(self, state: SoftmaxSum) -> Tensor:
        """P_u `[B, L, D]`: the heads side by side."""
        return finish_softmax(state).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, H, N, W]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def reduce_pools(events: Tensor, days: Tensor, keep: Tensor, pool_days: tuple[float, ...]) -> SoftmaxSum:
    """Pooled histories: means of the event embeddings, each with its own exponential decay, the last flat.

    A pool is a link with no content key, so it is the same monoid: rows are pools
    `[B, J]`, values `[B, J, D]`.
    """
    return reduce_softmax(weigh_pools(days, keep, pool_days), events)


def weigh_pools(days: Tensor, keep: Tensor, pool_days: tuple[float, ...]) -> Tensor:
    """Logits `[B, J, N]` of the events in the pools, `-inf` where an event does not count."""
    rates = torch.tensor([1.0 / d for d in pool_days] + [0.0], dtype=days.dtype, device=days.device)
    logits = rates[:, None] * days[:, None, :]  # [B, J, N]
    return logits.masked_fill(~keep[:, None, :], -torch.inf)
