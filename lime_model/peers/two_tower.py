"""Two towers: a user vector from pooled history and features, a dot with the item (Covington et al. 2016).

Letters: B windows, T targets, J pools, D width, X user width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lime_model.config import ModelConfig
from lime_model.peers.past import Past


class TwoTower(nn.Module):
    """Scores a candidate by a dot product: `MLP([pools ; x_u]) · T_c / √D`."""

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()  # it reads only the pools, which the trunk drops
        self.user = nn.Sequential(
            nn.Linear(config.pools * config.width + config.user_width, 128),
            nn.ReLU(),
            nn.Linear(128, config.width),
        )

    def forward(self, past: Past, items: Tensor) -> Tensor:
        """Logits `[B, T]` for T_c `[B, T, D]`."""
        users = past.user.unsqueeze(1).expand(-1, items.shape[1], -1)
        vector: Tensor = self.user(torch.cat([past.pools.flatten(2), users], -1))
        return (vector * items).sum(-1) / items.shape[-1] ** 0.5
