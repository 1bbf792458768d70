"""States from one pass equal those of a separately read history for each target, gradients too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lime_model.model.lime import Features, History, LimeModel
from lime_model.model.links import LinkAttention
from lime_model.train.prefixes import pair_dots, pair_links, read_before
from tests.lime_model.toys import assert_same_gradients, toy_config, toy_model, toy_users

B, N, T = 3, 9, 6


def windows() -> tuple[History, Features, Tensor]:
    """Random windows; the second starts late, and two targets of the third share a session."""
    torch.manual_seed(0)
    events = torch.randn(B, N + T, 8).double().requires_grad_()
    days = torch.rand(B, N + T).double().cumsum(1)
    keep = torch.ones(B, N + T, dtype=torch.bool)
    keep[1, : N + 2] = False  # its first targets have no history
    seen = torch.arange(T).expand(B, T).clone()
    seen[2, 3:5] = 3
    return History(events, days - days[:, -1:], keep), toy_users([0, 1, 2]), N + seen


def slow(model: LimeModel, history: History, users: Features, end: Tensor, stride: int) -> tuple[Tensor, ...]:
    """One target at a time, `LimeModel.read` of what it sees; LIME-XOR of the last multiple of `stride`."""
    links, pools = [], []
    for b in range(B):
        for t in range(T):
            last, first = int(end[b, t]), int(end.min())
            place = torch.arange(last)
            place = place[history.keep[b, :last]]
            fresh = model.read(History(*(x[b : b + 1, place] for x in history)), users.at(slice(b, b + 1)))
            if model.config.variant == "lime-xor":
                old = place[place < first + (last - first) // stride * stride]
                state = model.read(History(*(x[b : b + 1, old] for x in history)), users.at(slice(b, b + 1)))
                links.append(state.links)
            else:
                links.append(fresh.links)
            pools.append(fresh.pools)
    return torch.cat(links), torch.cat(pools)


@pytest.mark.parametrize("begun", [0, 2])
@pytest.mark.parametrize(("variant", "stride"), [("lime-mha", 1), ("lime-xor", 1), ("lime-xor", 4)])
def test_equals_a_reading_per_target_with_gradients(variant: str, stride: int, begun: int) -> None:
    """This also holds where a window begins inside a session."""
    model = toy_model(toy_config(variant)).double()
    history, users, end = windows()
    end[0, :3] -= begun + torch.arange(3) * (begun > 0)
    fast = read_before(model, history, users, end, stride)
    links, pools = slow(model, history, users, end, stride)
    torch.testing.assert_close(fast.links, links, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(fast.pools, pools, rtol=1e-9, atol=1e-10)
    inputs = [history.events, *model.reader.parameters(), *model.links.parameters()]
    read = (torch.cat([x.flatten(), y.flatten()]) for x, y in ((fast.links, fast.pools), (links, pools)))
    assert_same_gradients(*read, inputs)


def test_years_between_events_leave_the_first_targets_a_state() -> None:
    """A float32 model whose links forget in weeks, over eight years: a mean of equal values is that value."""
    model = toy_model(toy_config())
    assert isinstance(model.reader, LinkAttention)
    history, users, end = windows()
    same = history.events.detach()[:1, :1].float().expand(B, N + T, -1)
    days = torch.linspace(-3000.0, 0.0, N + T).expand(B, -1)
    everything = torch.ones_like(history.keep)
    with torch.inference_mode():
        model.reader.decay.fill_(-2.0)  # softplus(-2) = .127 a day: exp(-381) over the window
        state = read_before(model, History(same, days, everything), users, end, 1)
        expected = model.reader.value(same[0, 0]).expand_as(state.links)
    torch.testing.assert_close(state.links, expected, rtol=1e-5, atol=1e-6)


def test_no_target_sees_itself_or_what_follows() -> None:
    """A change of the event at place N + t changes the states after target t and no state up to it."""
    model = toy_model(toy_config()).double()
    history, users, end = windows()
    before = read_before(model, history, users, end, 1).links.view(B, T, -1)
    for t in range(T):
        events = history.events.detach().clone()
        events[:, N + t] += 1.0
        after = read_before(model, history._replace(events=events), users, end, 1).links.view(B, T, -1)
        same = torch.isclose(after, before, rtol=1e-12, atol=1e-12).all(-1)
        assert torch.equal(same, (end <= N + t) | ~history.keep[:, N + t, None]), t


@pytest.mark.parametrize("tasks", [{}, {"tasks": ("view", "purchase"), "task_weights": (0.3, 1.7)}])
def test_pairs_score_as_the_whole_model_does(tasks: dict[str, object]) -> None:
    model = toy_model(toy_config(**tasks)).double()
    history, users, end = windows()
    state, items = read_before(model, history, users, end, 1), torch.randn(B * T, 8).double()
    pairs = pair_links(model, state, items) + pair_dots(model, state, items)
    whole = model.task_scores(state, items)  # [n, O, n]
    torch.testing.assert_close(pairs, torch.diagonal(whole, dim1=0, dim2=2).T, rtol=1e-9, atol=1e-10)
