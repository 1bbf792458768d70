"""Truncated multi-head attention: the candidate reads the user's last L events, as many as LIME has links.

The paper's cheap alternative to links (arXiv:2510.18239): the same number of keys, chosen by recency
instead of learned.

Letters: B windows, T targets, S events, L links, H heads, D width, W = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lime_model.config import ModelConfig
from lime_model.peers.past import Head, Past


class TruncatedMha(nn.Module):
    """`softmax(Q_c Kᵀ / √W + recency) V` over the last L events, through the shared head."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.links, self.heads = config.links, config.heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.recency = nn.Parameter(torch.zeros(config.heads, config.links))  # by events ago
        self.head = Head(config, dropout)

    def forward(self, past: Past, items: Tensor) -> Tensor:
        """Logits `[B, T]` for T_c `[B, T, D]`."""
        heads = (-1, self.heads, items.shape[-1] // self.heads)
        # The last L places of each target, oldest first: a gather instead of a mask over all S.
        place = past.end.unsqueeze(-1) + torch.arange(-self.links, 0)  # [B, T, L]
        inside = place >= 0
        rows = torch.arange(len(place)).view(-1, 1, 1)
        place = place.clamp_min(0)
        live = inside & past.keep[rows, place]
        q = self.query(items).view(*items.shape[:2], *heads[1:])  # [B, T, H, W]
        k = self.key(past.events)[rows, place].unflatten(-1, heads[1:])  # [B, T, L, H, W]
        v = self.value(past.events)[rows, place].unflatten(-1, heads[1:])
        logits = torch.einsum("bthw,btlhw->bthl", q, k) / heads[2] ** 0.5 + self.recency
        weight = torch.softmax(logits.masked_fill(~live.unsqueeze(2), -1e9), -1)
        weight = weight * live.any(-1)[..., None, None]
        attended = torch.einsum("bthl,btlhw->bthw", weight, v).flatten(2)
        out: Tensor = self.head(attended, items, past.user)
        return out
