"""The states that a user had before each of several consecutive events, from one pass over a window.

Label training has a target at every event, and reading each target's history separately would cost N events
per target. The softmax sum of LIME-MHA and of the pools is a monoid, so the states before T consecutive
targets are one reduction of the events before all of them, and a running sum over the rest. LIME-XOR has no
such form: its links are read once per `stride` events, and a target sees the last reading, which is at most
`stride - 1` events old.

Letters: B windows, S events of a window, T targets (its last T events), R rows of a softmax sum, L links,
H heads, J pools, D width, W = D / H, X user width, O tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lime_model.model.lime import Features, History, LimeModel, UserState
from lime_model.model.links import LinkAttention, weigh_pools


def means_before(logits: Tensor, values: Tensor, end: Tensor) -> Tensor:
    """Compute softmax means `[B, T, ..., R, W]` over the events that each target sees; zero without any.

    Args:
        logits: `[B, ..., R, S]`, `-inf` for events that do not count.
        values: `[B, ..., S, W]`.
        end: place after the last event that each target sees `[B, T]`, below S.
    """
    past = int(end.min())  # all targets see the events before this place
    logits = logits[..., :-1]  # no target sees the last event
    # One reference logit serves the whole window: a mean does not depend on it, and every weight is at most
    # 1.
    top = torch.nan_to_num(logits.detach().amax(-1, keepdim=True), neginf=0.0)
    weight = torch.exp(logits - top)
    old, new = weight[..., :past], weight[..., past:]
    steps = new.unsqueeze(-1) * values[..., past:-1, :].unsqueeze(-3)  # [B, ..., R, S - past - 1, W]
    total = F.pad(steps.cumsum(-2), (0, 0, 1, 0)) + (old @ values[..., :past, :]).unsqueeze(-2)
    count = F.pad(new.cumsum(-1), (1, 0)) + old.sum(-1, keepdim=True)  # [B, ..., R, S - past]
    total, count = _rows(total.movedim(-2, 1), end - past), _rows(count.movedim(-1, 1), end - past)
    count = count.unsqueeze(-1)
    smallest = torch.finfo(count.dtype).tiny
    return torch.where(count > 0, total / count.clamp_min(smallest), torch.zeros_like(total))


def read_before(
    model: LimeModel, history: History, features: Features, end: Tensor, stride: int, *, links: bool = True
) -> UserState:
    """Read the state before every target, as `B·T` users.

    Args:
        model: the model.
        history: windows of S events; the last T are the targets.
        features: features of the users `[B]`.
        end: as in `means_before`.
        stride: events between two readings of LIME-XOR; LIME-MHA is exact.
        links: without, the links are zeros.
    """
    user = model.users(features)
    # In float64: in a long window the weights of the first events, exp(-age / days) or the links' learned
    # recency, are smaller than float32 can hold relative to those of the last events.
    weights = weigh_pools(history.days.double(), history.keep, model.config.pool_days)
    pools = means_before(weights, history.events.double(), end).to(history.events.dtype)
    if not links:
        attended = pools.new_zeros(*end.shape, model.config.links, model.config.width)
    elif isinstance(model.reader, LinkAttention):
        parts = model.reader.weigh(model.links.contextual(user), *history)
        logits, values = (part.double() for part in parts)
        means = means_before(logits, values, end).to(history.events.dtype)
        attended = means.transpose(2, 3).flatten(3)  # [B, T, H, L, W] to [B, T, L, D]
    else:
        attended = _read_xor(model, history, model.links.contextual(user), end, stride)
    users = user.unsqueeze(1).expand(-1, end.shape[1], -1)
    return UserState(attended.flatten(0, 1), pools.flatten(0, 1), users.flatten(0, 1))


def _read_xor(model: LimeModel, history: History, queries: Tensor, end: Tensor, stride: int) -> Tensor:
    """Return link states `[B, T, L, D]` as of at most `stride - 1` events before what a target sees."""
    first, states = int(end.min()), []
    readings, which = torch.unique((end - first) // stride, return_inverse=True)
    for number in readings.tolist():
        last = first + number * stride
        part = slice(max(0, last - model.config.max_events), last)
        states.append(model.reader(queries, *(x[:, part] for x in history)))
    return _rows(torch.stack(states, 1), which)


def pair_links(model: LimeModel, state: UserState, items: Tensor) -> Tensor:
    """Compute the links' part of every task's score `[n, O]` for n pairs of a user and an item.

    Args:
        model: the model.
        state: states of the n users.
        items: T of the n items `[n, D]`.
    """
    attended = (model.links.weights(items).unsqueeze(1) @ state.links).squeeze(1)  # o [n, D]
    hidden = torch.relu(model.head(torch.cat([attended, items, state.user], -1)))
    shallow: Tensor = model.head_out(hidden)
    return shallow


def pair_dots(model: LimeModel, state: UserState, items: Tensor) -> Tensor:
    """Compute the dot's part of every task's score `[n, O]`; with `pair_links` it sums to
    `LimeModel.task_scores`.

    Args:
        model: the model.
        state: states of the n users.
        items: T of the n items `[n, D]`.
    """
    return (model.dot_vector(state) @ model.dot_item(items).unsqueeze(-1)).squeeze(-1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Take the rows of `x [B, n, ...]` at `index [B, T]`: `[B, T, ...]`."""
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), index]
