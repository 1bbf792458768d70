"""Deep Interest Network, arXiv:1706.06978: an activation unit weighs each event by the candidate.

The unit is a small MLP over `[T_c ; e ; T_c ⊙ e]` and how long ago the event was; its weights are not
normalised by a softmax. They are divided by the number of events, so that long histories do not shout.

Letters: B windows, T targets, S events, D width, A units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lime_model.config import ModelConfig
from lime_model.peers.past import Head, Past, log_bucket

UNITS = 36  # of the paper
AGES = 12


class Din(nn.Module):
    """`Σ_i a(T_c, e_i) e_i / count` through the shared head."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.of_item = nn.Linear(config.width, UNITS)
        self.of_event = nn.Linear(config.width, UNITS, bias=False)
        self.of_both = nn.Linear(config.width, UNITS, bias=False)
        self.of_age = nn.Embedding(AGES, UNITS)
        self.unit = nn.Linear(UNITS, 1)
        self.head = Head(config, dropout)
        nn.init.zeros_(self.of_age.weight)

    def forward(self, past: Past, items: Tensor) -> Tensor:
        """Logits `[B, T]` for T_c `[B, T, D]`."""
        visible = past.visible
        crossed = items.unsqueeze(2) * self.of_both.weight  # [B, T, A, D]
        inner = (crossed @ past.events.unsqueeze(1).transpose(2, 3)).transpose(2, 3)  # [B, T, S, A]
        inner = inner + self.of_item(items).unsqueeze(2) + self.of_event(past.events).unsqueeze(1)
        inner = inner + self.of_age(log_bucket(past.age, AGES))
        weight = self.unit(torch.relu(inner)).squeeze(-1) * visible  # [B, T, S]
        attended = weight @ past.events / visible.sum(-1, keepdim=True).clamp_min(1)
        logits: Tensor = self.head(attended, items, past.user)
        return logits
