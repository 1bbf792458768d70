"""The folded score equals the unfolded one: in values, in gradients and in the canonical float64 form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lime_model.config import MEMORY_FEATURES
from lime_model.model.fold import fold_items, fold_users, folded_scores, folded_task_scores
from lime_model.model.lime import History, UserState
from lime_model.scoring.backends.native import NativeBackend
from lime_model.scoring.canonical import Rows, Weights, ordered_matmul
from lime_model.scoring.native import ISAS, why_not
from tests.lime_model.toys import TWO_TASKS, assert_same_gradients, toy_config, toy_model, toy_users


def random_state(model_width: int, pools: int, links: int, batch: int) -> UserState:
    return UserState(
        torch.randn(batch, links, model_width).double(),
        torch.randn(batch, pools, model_width).double(),
        torch.randn(batch, 4).double(),
    )


@pytest.mark.parametrize("tasks", [{}, TWO_TASKS])
def test_folded_equals_unfolded_with_gradients(tasks: dict[str, Any]) -> None:
    model = toy_model(toy_config(**tasks)).double()
    state, items = random_state(8, 3, 5, 2), torch.randn(11, 8).double()
    plain = model.base_scores(state, items)
    folded = folded_scores(model, fold_users(model, state), fold_items(model, items))
    torch.testing.assert_close(plain, folded, rtol=1e-10, atol=1e-10)
    assert_same_gradients(plain, folded, list(model.parameters()))


@pytest.mark.parametrize("tasks", [{}, TWO_TASKS])
def test_canonical_equals_unfolded(tasks: dict[str, Any]) -> None:
    model = toy_model(toy_config(**tasks)).double()
    weights, state = Weights.of(model), random_state(8, 3, 5, 1)
    flat = torch.randn(13, 8).double()
    items = flat + model.items.deep(flat)
    np.testing.assert_allclose(weights.item_tower(flat.numpy()), items.detach().numpy(), rtol=1e-12)
    factors = weights.fold_items(items.detach().numpy())
    (user,) = weights.fold_users(*(part.numpy() for part in state))
    rows = Rows(*factors, np.zeros(13, np.float32))
    expected = model.base_scores(state, items)[0].detach()
    np.testing.assert_allclose(weights.base(user, rows), expected.numpy(), rtol=1e-5, atol=1e-5)
    features = torch.rand(13, MEMORY_FEATURES)
    boost = model.repeat_boost(features.double(), expected).detach().numpy()
    np.testing.assert_allclose(weights.memory(features.numpy(), expected.numpy()), boost, rtol=1e-10)


def test_the_score_is_the_weighted_sum_of_the_tasks_logits() -> None:
    """The expected sum comes from two models of one task, each with that task's part of the weights."""
    both = toy_model(toy_config(**TWO_TASKS)).double()
    state, items = random_state(8, 3, 5, 2), torch.randn(11, 8).double()
    alone = []
    for task in range(2):
        one = toy_model(toy_config()).double()
        shares = {
            name: value.unflatten(0, (2, -1))[task] if one.state_dict()[name].shape != value.shape else value
            for name, value in both.state_dict().items()
        }
        one.load_state_dict(shares)
        alone.append(one.base_scores(state, items))
    torch.testing.assert_close(both.base_scores(state, items), 0.3 * alone[0] + 1.7 * alone[1])
    users, bank = fold_users(both, state), fold_items(both, items)
    torch.testing.assert_close(folded_task_scores(both, users, bank), torch.stack(alone, 1))


@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(1, 33, 17), (5, 8, 8), (40, 7, 3), (2, 900, 1), (1, 1, 4), (11, 33, 39)]
)
def test_a_compiled_product_has_the_bits_of_the_canonical_one(rows: int, inner: int, columns: int) -> None:
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((rows, inner)), rng.standard_normal((inner, columns))
    x[0, 0] = -0.0
    total = x[:, 0, None] * w[0]
    for k in range(1, inner):
        total = total + x[:, k, None] * w[k]
    assert ordered_matmul(x, w).tobytes() == total.tobytes()
    for isa in ISAS:
        if not why_not(isa):
            assert NativeBackend(isa=isa).multiply(x, w).tobytes() == total.tobytes(), isa


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_canonical_bits_do_not_depend_on_the_batch(rows: int) -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((64, 33)), rng.standard_normal((33, 17))
    whole = ordered_matmul(x, w)
    parts = np.concatenate([ordered_matmul(x[i : i + rows], w) for i in range(0, 64, rows)])
    assert whole.tobytes() == parts.tobytes()
    weights = Weights.of(toy_model(toy_config()))
    states = [rng.standard_normal(shape) for shape in ((64, 5, 8), (64, 3, 8), (64, 4))]
    users = weights.fold_users(*states)
    for i in range(0, 64, rows):
        part = weights.fold_users(*(side[i : i + rows] for side in states))
        for mine, alone in zip(users[i : i + rows], part, strict=True):
            assert (mine.g.tobytes(), mine.e.tobytes()) == (alone.g.tobytes(), alone.e.tobytes())
    user = users[0]
    bank = Rows(*weights.fold_items(rng.standard_normal((64, 8))), rng.standard_normal(64).astype(np.float32))
    pieces = [bank.take(np.arange(i, min(i + rows, 64))) for i in range(0, 64, rows)]
    again = np.concatenate([weights.base(user, piece) for piece in pieces])
    assert weights.base(user, bank).tobytes() == again.tobytes()


@pytest.mark.parametrize("variant", ["lime-mha", "lime-xor"])
def test_a_batch_of_users_equals_each_alone_with_gradients(variant: str) -> None:
    model = toy_model(toy_config(variant)).double()
    events, days = torch.randn(3, 9, 8).double(), torch.rand(3, 9).double() * -50
    keep = torch.arange(9)[None, :] >= torch.tensor([0, 4, 9])[:, None]  # the third has no history
    users, items = toy_users([0, 1, 2]), torch.randn(6, 8).double()
    together = model.base_scores(model.read(History(events, days, keep), users), items)
    each = []
    for row in range(3):
        alone = History(*(x[row : row + 1][:, keep[row]] for x in (events, days, keep)))
        each.append(model.base_scores(model.read(alone, users.at(slice(row, row + 1))), items))
    single = torch.cat(each)
    torch.testing.assert_close(together, single, rtol=1e-9, atol=1e-9)
    assert_same_gradients(together, single, list(model.parameters()))
    assert bool(torch.isfinite(together).all())
