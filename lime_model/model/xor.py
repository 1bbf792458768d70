"""LIME-XOR: links and events go through three HSTU blocks with an exclusive-or mask.

Attention is kept only where exactly one side is a link: links read events, and events read links. Two
rectangular attentions cost O(L·N), and the (L+N)² matrix is never built. A block is that of HSTU
(arXiv:2402.17152): pointwise SiLU attention, divided by the number of unmasked keys of the row and gated by a
SiLU branch. `tests/lime_model/model/test_xor.py` compares it with the masked dense form.

Letters: U users, N events, L links, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.config import ModelConfig

AGE_BUCKETS = 12  # log2 of the days before the user's last event; the last bucket starts at 2047 days


class XorBlock(nn.Module):
    """One HSTU block over `[links; events]` under the XOR mask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 4 * width)
        self.attended_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, links: Tensor, events: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Return new links and events in the same shapes.

        Args:
            links: `[U, L, D]`.
            events: `[U, N, D]`.
            keep: which events count `[U, N]`.
        """
        normed, log = self.norm(links), self.norm(events)
        return links + self._from_events(normed, log, keep), events + self._from_links(normed, log)

    def read(self, links: Tensor, events: Tensor, keep: Tensor) -> Tensor:
        """Return the new links only; the events of the last block are not read.

        Args:
            links: `[U, L, D]`.
            events: `[U, N, D]`.
            keep: which events count `[U, N]`.
        """
        return links + self._from_events(self.norm(links), self.norm(events), keep)

    def _from_events(self, links: Tensor, events: Tensor, keep: Tensor) -> Tensor:
        gate, query = self._branches(links, 0)
        key, value = self._branches(events, 2)
        live = keep.unsqueeze(1).to(links.dtype)  # [U, 1, N]
        count = live.sum(-1, keepdim=True).clamp_min(1.0)  # keys of a link row
        attended = (F.silu(query @ key.transpose(1, 2)) * live / count) @ value  # [U, L, D]
        return self._gated(attended, gate)

    def _from_links(self, links: Tensor, events: Tensor) -> Tensor:
        gate, query = self._branches(events, 0)
        key, value = self._branches(links, 2)
        attended = (F.silu(query @ key.transpose(1, 2)) / links.shape[1]) @ value  # [U, N, D]
        return self._gated(attended, gate)

    def _gated(self, attended: Tensor, gate: Tensor) -> Tensor:
        out: Tensor = self.out(self.attended_norm(attended) * gate)
        return out

    def _branches(self, x: Tensor, first: int) -> tuple[Tensor, ...]:
        """Compute two of gate, query, key and value, from branch `first` on, each `[U, *, D]`."""
        width = x.shape[-1]
        rows = slice(first * width, (first + 2) * width)
        return F.silu(F.linear(x, self.project.weight[rows], self.project.bias[rows])).chunk(2, -1)


class XorStack(nn.Module):
    """The blocks one after another; their last link rows are the link state P_u."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.age = nn.Embedding(AGE_BUCKETS, config.width)
        self.blocks = nn.ModuleList(XorBlock(config.width) for _ in range(config.xor_blocks))
        nn.init.normal_(self.age.weight, std=0.02)

    def forward(self, queries: Tensor, events: Tensor, days: Tensor, keep: Tensor) -> Tensor:
        """Compute P_u `[U, L, D]`; it is zero for an empty history.

        Args:
            queries: Q_u `[U, L, D]`.
            events: embeddings of the last N_max events `[U, N, D]`.
            days: event time in days `[U, N]`; only gaps to the user's last event are used.
            keep: which events count `[U, N]`.
        """
        if events.shape[1] == 0:
            return torch.zeros_like(queries)
        events = events + self.age(age_bucket(days, keep))
        links = queries
        for block in self.blocks[:-1]:
            links, events = block(links, events, keep)
        last = self.blocks[-1]
        assert isinstance(last, XorBlock)
        links = last.read(links, events, keep)
        return links * keep.any(1).to(links.dtype)[:, None, None]


def age_bucket(days: Tensor, keep: Tensor) -> Tensor:
    """Return `floor(log2(1 + days before the last kept event))` in `[0, AGE_BUCKETS)`, `[U, N]` int64."""
    last = days.masked_fill(~keep, -torch.inf).amax(1, keepdim=True)
    gap = torch.nan_to_num(last - days, neginf=0.0, posinf=0.0).clamp_min(0.0)
    return torch.log2(1.0 + gap).floor().long().clamp_max(AGE_BUCKETS - 1)
