"""Low-rank attention by projecting positions, after Linformer (arXiv:2006.04768).

Keys and values of the history are mixed into L rows by a learned matrix over positions, counted back
from the last event; the candidate attends to those. Low rank like LIME, but the mixing goes by place
and not by content.

Letters: B windows, T targets, S events, L rows, H heads, D width, W = D / H, N longest history.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lime_model.config import ModelConfig
from lime_model.peers.past import Head, Past


class Linformer(nn.Module):
    """`softmax(Q_c (E K)ᵀ / √W) (E V)`, E `[L, N]`, through the shared head."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.longest = config.heads, config.max_events
        self.mix = nn.Parameter(torch.randn(config.max_events, config.links) * config.max_events**-0.5)
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.head = Head(config, dropout)

    def forward(self, past: Past, items: Tensor) -> Tensor:
        """Logits `[B, T]` for T_c `[B, T, D]`."""
        age, heads = past.age, (self.heads, items.shape[-1] // self.heads)
        counts = past.visible & (age < self.longest)
        mix = self.mix[age.clamp(0, self.longest - 1)] * counts.unsqueeze(-1)  # [B, T, S, L]
        mix = mix.transpose(2, 3)  # [B, T, L, S]
        q = self.query(items).unflatten(-1, heads)  # [B, T, H, W]
        k = (mix @ self.key(past.events).unsqueeze(1)).unflatten(-1, heads)  # [B, T, L, H, W]
        v = (mix @ self.value(past.events).unsqueeze(1)).unflatten(-1, heads)
        weight = torch.softmax(torch.einsum("bthw,btlhw->bthl", q, k) / heads[1] ** 0.5, -1)
        attended = torch.einsum("bthl,btlhw->bthw", weight, v).flatten(2)
        out: Tensor = self.head(attended, items, past.user)
        return out
