"""Other ways for a candidate to meet a history, on LIME's own trunk: what LIME is measured against.

Each takes the place of the links: item tower, action embeddings, pools and dot are the trunk's and the
same for all (`lime_model/train/labels.py`), though LIME's dot reads its links, too, as its score has it.
What a peer makes of the history is dropped in training as LIME's link state is. None folds into per-user
and per-item factors, bar the two-tower: each reads the history for every candidate, which is what LIME saves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from lime_model.config import ModelConfig
from lime_model.peers.din import Din
from lime_model.peers.hstu import Hstu
from lime_model.peers.linformer import Linformer
from lime_model.peers.past import Past
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

__all__ = ["PEERS", "Past", "PeerName"]
