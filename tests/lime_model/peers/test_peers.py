"""Each peer equals its plain form, which reads one target's own history without masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.peers.din import Din
from lime_model.peers.hstu import Hstu, HstuBlock
from lime_model.peers.linformer import Linformer
from lime_model.peers.past import Head, Past, log_bucket
from lime_model.peers.registry import PEERS
from lime_model.peers.sasrec import SasRec
from lime_model.peers.truncated_mha import TruncatedMha
from lime_model.peers.two_tower import TwoTower
from tests.lime_model.toys import assert_same_gradients, toy_config

B, N, T, D = 2, 9, 4, 8


def windows() -> tuple[Past, Tensor]:
    """Two windows; the second has three events before its targets, and two of these share a session."""
    torch.manual_seed(0)
    keep = torch.ones(B, N + T, dtype=torch.bool)
    keep[1, : N - 3] = False
    seen = torch.tensor([[0, 1, 2, 3], [0, 1, 1, 3]])
    events, pools = torch.randn(B, N + T, D).double(), torch.randn(B, T, 3, D).double()
    past = Past(events, torch.zeros(B, N + T).double(), keep, N + seen, pools, torch.randn(B, 4).double())
    return past, torch.randn(B, T, D).double()


def head(of: Head, attended: Tensor, item: Tensor, user: Tensor) -> Tensor:
    return of.outer(torch.relu(of.inner(torch.cat([attended, item, user]))))[0]


def two_tower(peer: TwoTower, events: Tensor, item: Tensor, pools: Tensor, user: Tensor) -> Tensor:
    return peer.user(torch.cat([pools.flatten(), user])) @ item / D**0.5


def din(peer: Din, events: Tensor, item: Tensor, pools: Tensor, user: Tensor) -> Tensor:
    total = torch.zeros(D).double()
    for age, event in enumerate(events.flip(0)):
        inner = peer.of_item(item) + peer.of_event(event) + peer.of_both(item * event)
        inner = inner + peer.of_age(log_bucket(torch.tensor(age), 12))
        total = total + peer.unit(torch.relu(inner)) * event
    return head(peer.head, total / len(events), item, user)


def attend(peer: nn.Module, keys: Tensor, values: Tensor, item: Tensor, bias: Tensor | float) -> Tensor:
    """Two heads of softmax attention of one candidate over rows of keys and values."""
    q, k, v = peer.query(item).view(2, 4), keys.view(-1, 2, 4), values.view(-1, 2, 4)
    logits = torch.stack([k[:, h] @ q[h] / 2.0 for h in range(2)]) + bias  # [H, rows]
    return torch.cat([torch.softmax(logits[h], 0) @ v[:, h] for h in range(2)])


def truncated(peer: TruncatedMha, events: Tensor, item: Tensor, pools: Tensor, user: Tensor) -> Tensor:
    last = events[-peer.links :]
    bias = peer.recency[:, peer.links - len(last) :]
    return head(peer.head, attend(peer, peer.key(last), peer.value(last), item, bias), item, user)


def linformer(peer: Linformer, events: Tensor, item: Tensor, pools: Tensor, user: Tensor) -> Tensor:
    last = events[-peer.longest :].flip(0)  # the newest first
    mix = peer.mix[: len(last)].T  # [L, n]
    attended = attend(peer, mix @ peer.key(last), mix @ peer.value(last), item, 0.0)
    return head(peer.head, attended, item, user)


def sasrec(peer: SasRec, events: Tensor, item: Tensor, pools: Tensor, user: Tensor, first: int = 0) -> Tensor:
    """Score one target; `first` is the place of the oldest event in its window of N + T."""
    place = torch.arange(first, first + len(events))
    rows = (events + peer.positions(N + T - 1 - place)).unsqueeze(0)
    mask = nn.Transformer.generate_square_subsequent_mask(len(events), dtype=torch.float64)
    return peer.blocks(rows, mask=mask)[0, -1] @ item / D**0.5


def hstu(peer: Hstu, events: Tensor, item: Tensor, pools: Tensor, user: Tensor) -> Tensor:
    """The candidate is the last row of a causal stack over all rows, attention `[n, n]`."""
    rows = torch.cat([events, item.unsqueeze(0)])
    place = torch.arange(len(rows))
    distance = place[:, None] - place[None, :]
    for block in peer.blocks:
        assert isinstance(block, HstuBlock)
        u, q, k, v = F.silu(block.project(block.norm(rows))).chunk(4, -1)
        scores = F.silu(q @ k.T + block.distance[log_bucket(distance, 12)]).tril()
        read = scores @ v / (place + 1.0).unsqueeze(1)
        rows = rows + block.out(block.after(read) * u)
    return head(peer.head, rows[-1], item, user)


PLAIN: dict[str, Callable[..., Tensor]] = {
    "two-tower": two_tower, "din": din, "truncated-mha": truncated, "linformer": linformer,
    "sasrec": sasrec, "hstu": hstu,
}  # fmt: skip


@pytest.mark.parametrize("name", list(PEERS))
def test_equals_the_plain_form_target_by_target_with_gradients(name: str) -> None:
    torch.manual_seed(1)
    peer = PEERS[name](toy_config(max_events=7)).double().eval()  # type: ignore[index]
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.4)
    past, items = windows()
    past.events.requires_grad_()
    fast, slow = peer(past, items), []
    for b in range(B):
        first = N - 3 if b else 0
        for t in range(T):
            events = past.events[b, first : int(past.end[b, t])]
            more = {"first": first} if name == "sasrec" else {}
            plain = PLAIN[name](peer, events, items[b, t], past.pools[b, t], past.user[b], **more)
            torch.testing.assert_close(fast[b, t], plain, rtol=1e-8, atol=1e-9, msg=f"{b}, {t}")
            slow.append(plain)
    plain = torch.stack(slow).view(B, T)
    assert_same_gradients(fast, plain, [past.events, *peer.parameters()])


@pytest.mark.parametrize("name", list(PEERS))
def test_an_empty_history_gives_a_finite_logit(name: str) -> None:
    peer = PEERS[name](toy_config()).double().eval()  # type: ignore[index]
    past, items = windows()
    alone = past._replace(keep=torch.zeros_like(past.keep), end=torch.zeros_like(past.end))
    assert torch.isfinite(peer(alone, items)).all()
