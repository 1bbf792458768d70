"""The score folds into per-user and per-item factors that never touch D again.

    z(u, c) = w·relu(A_c · G_u + B_c) + d_c·e_u        (+ s_u(c) + β_c later)
    G_u = P_u W_o + 1·(W_u x_u)ᵀ      the link weights sum to 1, so the user part folds in
    B_c = T_c W_t + b₁

Training runs these very functions in float32, whole batches at a time; a night runs
them in float64, one user at a time, and rounds once (a batched product would change
its last bits with the batch).

Several tasks have a w and an e_u each; their weighted sum is one w and one e_u.

Letters: B users, C candidates, L links, D width, X user width, F hidden, E dot width, T tasks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lime_model.model.lime import LimeModel, UserState


class UserFactors(NamedTuple):
    """`G [B, L, F]` and e of every task `[B, T, E]`."""

    g: Tensor
    e: Tensor


class ItemFactors(NamedTuple):
    """`A [C, L]`, `B [C, F]` and `d [C, E]`."""

    a: Tensor
    b: Tensor
    d: Tensor


def fold_users(model: LimeModel, state: UserState) -> UserFactors:
    """G_u and e_u in the dtype of the model."""
    attended, _, user = _head_blocks(model)
    g = state.links @ attended.T + (state.user @ user.T).unsqueeze(1)  # [B, L, F]
    return UserFactors(g, model.dot_vector(state))


def fold_items(model: LimeModel, items: Tensor) -> ItemFactors:
    """A_c, B_c and d_c of T `[C, D]` in the dtype of the model."""
    _, item, _ = _head_blocks(model)
    b = items @ item.T + model.head.bias
    return ItemFactors(model.links.weights(items), b, model.dot_item(items))


def folded_scores(model: LimeModel, users: UserFactors, items: ItemFactors) -> Tensor:
    """z `[B, C]`, differentiable; equal to `model.base_scores` up to rounding."""
    out, e = model.weigh(model.head_out.weight, 0), model.weigh(users.e, 1)
    return _hidden(users, items) @ out + e @ items.d.T


def folded_task_scores(model: LimeModel, users: UserFactors, items: ItemFactors) -> Tensor:
    """z of every task `[B, T, C]`; equal to `model.task_scores` up to rounding."""
    return (_hidden(users, items) @ model.head_out.weight.T).transpose(1, 2) + users.e @ items.d.T


def _hidden(users: UserFactors, items: ItemFactors) -> Tensor:
    """The head's hidden units `[B, C, F]`, shared by the tasks."""
    return torch.matmul(items.a, users.g).add_(items.b).relu_()


def _head_blocks(model: LimeModel) -> tuple[Tensor, Tensor, Tensor]:
    """The head's weight over `[o ; T_c ; x_u]`, each `[F, *]`."""
    config = model.config
    blocks = model.head.weight.split([config.width, config.width, config.user_width], 1)
    return blocks[0], blocks[1], blocks[2]
