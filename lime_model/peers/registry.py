"""All peers by name; a new peer is its own file and a line here.

Whatever trains or measures peers reads this table. LIME's own training does not, so that a change of a peer
retrains no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from lime_model.config import ModelConfig
from lime_model.peers.din import Din
from lime_model.peers.hstu import Hstu
from lime_model.peers.linformer import Linformer
from lime_model.peers.sasrec import SasRec
from lime_model.peers.truncated_mha import TruncatedMha
from lime_model.peers.two_tower import TwoTower

PeerName = Literal["two-tower", "din", "sasrec", "hstu", "truncated-mha", "linformer"]

PEERS: dict[PeerName, Callable[[ModelConfig, float], nn.Module]] = {
    "two-tower": TwoTower,
    "din": Din,
    "sasrec": SasRec,
    "hstu": Hstu,
    "truncated-mha": TruncatedMha,
    "linformer": Linformer,
}
