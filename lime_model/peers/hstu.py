"""HSTU, arXiv:2402.17152: three blocks over the events and the candidate behind them.

Pointwise SiLU attention with a learned bias by distance, divided by the number of keys, gated by a SiLU
branch; events read what came before, a candidate reads the events it sees and itself, never another
candidate. The candidate's last row goes through the shared head.

Letters: B windows, T targets, S events, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.config import ModelConfig
from lime_model.peers.past import Head, Past, log_bucket

BUCKETS = 12


class HstuBlock(nn.Module):
    """One block over events `[B, S, D]` and candidates `[B, T, D]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 4 * width)
        self.distance = nn.Parameter(torch.zeros(BUCKETS))
        self.after = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, rows: Tensor, mask: Tensor, bucket: Tensor) -> Tensor:
        """New rows `[B, S + T, D]`: all read events, a candidate itself too.

        Args:
            rows: events, then candidates.
            mask: which events each row reads `[B, S + T, S]`.
            bucket: of the distance from row to event, same shape.
        """
        events, targets = mask.shape[2], mask.shape[1] - mask.shape[2]
        gate, query, key, value = F.silu(self.project(self.norm(rows))).chunk(4, -1)
        scores = F.silu(query @ key[:, :events].transpose(1, 2) + self.distance[bucket]) * mask
        own = F.silu((query[:, events:] * key[:, events:]).sum(-1, keepdim=True) + self.distance[0])
        read = scores @ value[:, :events]  # [B, S + T, D]
        read = read + F.pad(own * value[:, events:], (0, 0, events, 0))
        itself = F.pad(read.new_ones(targets), (events, 0))
        count = (mask.sum(-1) + itself).clamp_min(1.0).unsqueeze(-1)
        out: Tensor = rows + self.out(self.after(read / count) * gate)
        return out


class Hstu(nn.Module):
    """The candidate's row after the blocks, through the shared head."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HstuBlock(config.width) for _ in range(config.xor_blocks))
        self.head = Head(config, dropout)

    def forward(self, past: Past, items: Tensor) -> Tensor:
        """Logits `[B, T]` for T_c `[B, T, D]`."""
        size = past.events.shape[1]
        place = torch.arange(size)
        distance = place[:, None] - place[None, :]  # an event reads itself and what came before
        of_events = past.keep.unsqueeze(1) & (distance >= 0)
        mask = torch.cat([of_events, past.visible], 1)  # [B, S + T, S]
        far = torch.cat([distance.expand(len(mask), -1, -1), past.age + 1], 1)
        bucket, rows = log_bucket(far, BUCKETS), torch.cat([past.events, items], 1)
        for block in self.blocks:
            rows = block(rows, mask, bucket)
        logits: Tensor = self.head(rows[:, size:], items, past.user)
        return logits
