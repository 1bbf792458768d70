"""SASRec, arXiv:1808.09781: a causal transformer over the events, a dot of its last row with the item.

Letters: B windows, T targets, S events, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lime_model.config import ModelConfig
from lime_model.peers.past import Past

BLOCKS = 2  # of the paper
POSITIONS = 1024


class SasRec(nn.Module):
    """`h · T_c / √D`, h the row of the last event that the target sees."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.positions = nn.Embedding(POSITIONS, config.width)  # back from the window's last event
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, BLOCKS, norm=nn.LayerNorm(config.width), enable_nested_tensor=False
        )
        self.drop = nn.Dropout(dropout)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, past: Past, items: Tensor) -> Tensor:
        """Logits `[B, T]` for T_c `[B, T, D]`."""
        size = past.events.shape[1]
        place = torch.arange(size)
        own = place[:, None] == place[None, :]  # a row of padding reads itself, so that softmax has a key
        hidden = (place[:, None] < place[None, :]) | (~past.keep.unsqueeze(1) & ~own)  # [B, S, S]
        hidden = hidden.repeat_interleave(self.blocks.layers[0].self_attn.num_heads, 0)
        events = past.events + self.positions((size - 1 - place).clamp_max(POSITIONS - 1))
        rows = self.blocks(events, mask=hidden)
        last = (past.end - 1).clamp_min(0)
        batch = torch.arange(len(rows)).unsqueeze(1)
        live = past.keep[batch, last] & (past.end > 0)
        return (self.drop(rows[batch, last]) * items).sum(-1) / items.shape[-1] ** 0.5 * live
