"""What a peer reads: windows of events, and how much of each a target may see.

Letters: B windows, S events of a window, T targets, D width, X user width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lime_model.config import ModelConfig


class Past(NamedTuple):
    """`events [B, S, D]`, `days`, `keep [B, S]`, `end [B, T]`: place after the last event that each target
    sees, pools before each target `[B, T, J, D]`, `user [B, X]`."""

    events: Tensor
    days: Tensor
    keep: Tensor
    end: Tensor
    pools: Tensor
    user: Tensor

    @property
    def age(self) -> Tensor:
        """How many events ago each event was for each target `[B, T, S]`: 0 is the last one seen."""
        return self.end.unsqueeze(-1) - 1 - torch.arange(self.events.shape[1], device=self.end.device)

    @property
    def visible(self) -> Tensor:
        """Which events each target sees `[B, T, S]`."""
        return self.keep.unsqueeze(1) & (self.age >= 0)


class Head(nn.Module):
    """LIME's shallow head on what a peer made of the history: `w·relu([o ; T_c ; x_u] W + b)`.

    Args:
        dropout: of o in training, as of LIME's link state.
    """

    def __init__(self, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.inner = nn.Linear(2 * config.width + config.user_width, config.hidden)
        self.outer = nn.Linear(config.hidden, 1)

    def forward(self, attended: Tensor, items: Tensor, user: Tensor) -> Tensor:
        """Compute logits `[B, T]`.

        Args:
            attended: o, what the peer made of the history `[B, T, D]`.
            items: T_c `[B, T, D]`.
            user: x_u `[B, X]`.
        """
        users = user.unsqueeze(1).expand(-1, items.shape[1], -1)
        hidden = torch.relu(self.inner(torch.cat([self.drop(attended), items, users], -1)))
        logits: Tensor = self.outer(hidden).squeeze(-1)
        return logits


def log_bucket(age: Tensor, buckets: int) -> Tensor:
    """`floor(log2(1 + age))` in `[0, buckets)`; negative ages are 0."""
    return torch.log2(1.0 + age.clamp_min(0)).floor().long().clamp_max(buckets - 1)
