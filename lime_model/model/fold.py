"""The score folds into factors per user and per item, and a pair of them no longer reads the width D.

    z(u, c) = w·relu(A_c · G_u + B_c) + d_c·e_u        (+ s_u(c) + β_c later)
    G_u = P_u W_o + 1·(W_u x_u)ᵀ      the link weights sum to 1, so the user part folds in
    B_c = T_c W_t + b₁

Training runs these functions in float32 over whole batches. A night computes the same factors in float64 and
rounds them once (`lime_model/scoring/canonical.py`), because the last bits of a batched product depend on the
batch. Each task has its own w and e_u; their weighted sum is one w and one e_u.

Letters: U users, C candidates, L links, D width, X user width, F hidden units, E width of the dot, O tasks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lime_model.model.lime import LimeModel, UserState


class UserFactors(NamedTuple):
    """`G [U, L, F]` and e of every task `[U, O, E]`."""

    g: Tensor
    e: Tensor


class ItemFactors(NamedTuple):
    """`A [C, L]`, `B [C, F]` and `d [C, E]`."""

    a: Tensor
    b: Tensor
    d: Tensor


def fold_users(model: LimeModel, state: UserState) -> UserFactors:
    """Fold users to G_u and e_u, in the dtype of the model."""
    attended, _, user = _head_blocks(model)
    g = state.links @ attended.T + (state.user @ user.T).unsqueeze(1)  # [U, L, F]
    return UserFactors(g, model.dot_vector(state))


def fold_items(model: LimeModel, items: Tensor) -> ItemFactors:
    """Fold T `[C, D]` to A_c, B_c and d_c, in the dtype of the model."""
    _, item, _ = _head_blocks(model)
    b = items @ item.T + model.head.bias
    return ItemFactors(model.links.weights(items), b, model.dot_item(items))


def folded_scores(model: LimeModel, users: UserFactors, items: ItemFactors) -> Tensor:
    """Compute z `[U, C]`, which equals `model.base_scores` up to rounding and is differentiable.

    Args:
        model: the model that folded both.
        users: G and e.
        items: A, B and d.
    """
    out, e = model.weigh(model.head_out.weight, 0), model.weigh(users.e, 1)
    return _hidden(users, items) @ out + e @ items.d.T


def folded_task_scores(model: LimeModel, users: UserFactors, items: ItemFactors) -> Tensor:
    """Compute z of every task `[U, O, C]`, which equals `model.task_scores` up to rounding.

    Args:
        model: the model that folded both.
        users: G and e.
        items: A, B and d.
    """
    return (_hidden(users, items) @ model.head_out.weight.T).transpose(1, 2) + users.e @ items.d.T


def _hidden(users: UserFactors, items: ItemFactors) -> Tensor:
    """Compute the head's hidden units `[U, C, F]`, which the tasks share."""
    return torch.matmul(items.a, users.g).add_(items.b).relu_()


def _head_blocks(model: LimeModel) -> tuple[Tensor, Tensor, Tensor]:
    """Split the head's weight over `[o ; T_c ; x_u]` into its three blocks `[F, *]`."""
    config = model.config
    blocks = model.head.weight.split([config.width, config.width, config.user_width], 1)
    return blocks[0], blocks[1], blocks[2]
