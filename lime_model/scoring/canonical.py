"""The canonical score: float64, one fixed order of additions, rounded once to fp32.

Everything here is elementwise multiply, add and max in a stated order, with no fused multiply-add and no
library reduction, so a value does not depend on its neighbours, on the batch, on threads or on the machine.
Every backend publishes these numbers; the fast ones only decide which candidates need them.

    z = Σ_f w_f · relu(B_cf + Σ_l A_cl G_lf) + Σ_k d_ck e_k      score = fp32((z + s) + β)

Letters: U users, C candidates, n rows or items, L links, J pools, D width, F hidden units, E width of the
dot, X user width, M pairs of the history, Q memory features, Z hidden units of the memory, O tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lime_model.arrays import F32, F64, Ints
from lime_model.model.entries import Entries
from lime_model.model.lime import LimeModel

Multiply = Callable[[F64, F64], F64]


class UserRow(NamedTuple):
    """The folded factors of one user: `g [L, F]` and `e [E]`, fp32."""

    g: F32
    e: F32


class Rows(NamedTuple):
    """The folded factors of some candidates: `a [C, L]`, `b [C, F]`, `d [C, E]` and `beta [C]`, fp32."""

    a: F32
    b: F32
    d: F32
    beta: F32

    def take(self, rows: Ints) -> Rows:
        """Return copies of the candidates at some rows."""
        return Rows(self.a[rows], self.b[rows], self.d[rows], self.beta[rows])


def round_scores(z: F64, beta: F32) -> F32:
    """Return published scores `[C]` from z, repeat memory included, and the night's bias `[C]`.

    A score beyond the range of float32 is infinite.
    """
    with np.errstate(over="ignore"):
        return (z + beta.astype(np.float64)).astype(np.float32)


def ordered_matmul(x: F64, w: F64) -> F64:
    """Compute `x [n, K] @ w [K, M]`, summing each output over K in ascending order, whatever n is."""
    # Two loops make the same additions. The first goes over the rows of x: reducing the leading axis of a
    # C-ordered block adds whole rows one after another. (With a single column NumPy would add pairwise.) The
    # second goes over K.
    if len(x) < len(w) and w.shape[1] > 1:
        return np.stack([np.add.reduce(row[:, None] * w, axis=0) for row in x])
    total = np.multiply.outer(x[:, 0], w[0])
    product = np.empty_like(total)
    for k in range(1, len(w)):
        total += np.multiply(x[:, k, None], w[k], out=product)
    return total


def sum_entries(table: F64, entries: Entries) -> F64:
    """Return the weighted sums of table rows `[n, *]`, added in the order of the entries."""
    total = np.zeros((len(entries.slots), table.shape[1]))
    for slots, weights in zip(entries.slots.T, entries.weights.T, strict=True):
        total += table[slots] * weights[:, None].astype(np.float64)
    return total


@dataclass(frozen=True)
class Weights:
    """The parameters that scoring needs, in float64; a worker copies them from a model once.

    Where tasks have parameters of their own, these are their weighted sum: the score is linear in them.
    """

    attended: F64  # W_o [D, F]
    item: F64  # W_t [D, F]
    user: F64  # W_u [X, F]
    head_bias: F64  # [F]
    out: F64  # w [F]
    deep_in: F64  # item tower [D, D]
    deep_in_bias: F64
    deep_out: F64
    deep_out_bias: F64
    raw_links: F64  # R [L, D]
    dot_item: F64  # [D, E]
    dot_pools: F64  # [J·D, E]
    dot_pools_bias: F64  # [E]
    dot_in: F64  # [L·D + J·D + X, 128]
    dot_in_bias: F64
    dot_out: F64  # [128, E]
    dot_out_bias: F64
    memory_in: F64  # [Q + 1, Z]
    memory_in_bias: F64
    memory_out: F64  # [Z]
    memory_skip: F64  # [Q + 1]
    memory_bias: float

    @classmethod
    def of(cls, model: LimeModel) -> Weights:
        """Copy the parameters of a model in eval mode."""
        config = model.config
        mix, dot = np.asarray(config.mix), config.dot
        attended, item, user = model.head.weight.split([config.width, config.width, config.user_width], 1)
        inner, outer, skip = model.memory.inner, model.memory.outer, model.memory.skip
        dot_out = model.dot_user[2]
        assert isinstance(dot_out, torch.nn.Linear)
        return cls(
            attended=_array(attended.T),
            item=_array(item.T),
            user=_array(user.T),
            head_bias=_array(model.head.bias),
            out=_weigh(mix, model.head_out.weight, 1)[0],
            deep_in=_weight(model.items.deep[0]),
            deep_in_bias=_bias(model.items.deep[0]),
            deep_out=_weight(model.items.deep[2]),
            deep_out_bias=_bias(model.items.deep[2]),
            raw_links=_array(model.links.raw),
            dot_item=_array(model.dot_item.weight.T),
            dot_pools=np.ascontiguousarray(_weigh(mix, model.dot_pools.weight, dot).T),
            dot_pools_bias=_weigh(mix, model.dot_pools.bias, dot)[:, 0],
            dot_in=_weight(model.dot_user[0]),
            dot_in_bias=_bias(model.dot_user[0]),
            dot_out=np.ascontiguousarray(_weigh(mix, dot_out.weight, dot).T),
            dot_out_bias=_weigh(mix, dot_out.bias, dot)[:, 0],
            memory_in=_weight(inner),
            memory_in_bias=_bias(inner),
            memory_out=_weigh(mix, outer.weight, 1)[0],
            memory_skip=_weigh(mix, skip.weight, 1)[0],
            memory_bias=float(_weigh(mix, outer.bias, 1)[0, 0]),
        )

    def fold_users(
        self, links: F64, pools: F64, users: F64, multiply: Multiply = ordered_matmul
    ) -> list[UserRow]:
        """Fold users to G_u and e_u, rounded once to fp32.

        Args:
            links: P_u `[U, L, D]`.
            pools: `[U, J, D]`.
            users: x_u `[U, X]`.
            multiply: `ordered_matmul`, or a function that returns the same bits.
        """
        count, length, width = links.shape
        g = multiply(links.reshape(-1, width), self.attended).reshape(count, length, -1)
        g += multiply(users, self.user)[:, None]  # [U, L, F]
        flat = pools.reshape(count, -1)
        wide = np.concatenate([links.reshape(count, -1), flat, users], 1)
        hidden = np.maximum(multiply(wide, self.dot_in) + self.dot_in_bias, 0.0)
        e = (multiply(flat, self.dot_pools) + self.dot_pools_bias) + (
            multiply(hidden, self.dot_out) + self.dot_out_bias
        )
        return [UserRow(*row) for row in zip(g.astype(np.float32), e.astype(np.float32), strict=True)]

    def item_tower(self, flat: F64) -> F64:
        """Compute T `[C, D]` from the sums of id and feature embeddings `[C, D]`."""
        hidden = np.maximum(ordered_matmul(flat, self.deep_in) + self.deep_in_bias, 0.0)
        return flat + (ordered_matmul(hidden, self.deep_out) + self.deep_out_bias)

    def fold_items(self, items: F64) -> tuple[F32, F32, F32]:
        """Fold T `[C, D]` to A_c `[C, L]`, B_c `[C, F]` and d_c `[C, E]`, rounded once to fp32."""
        logits = ordered_matmul(items, np.ascontiguousarray(self.raw_links.T)) / items.shape[1] ** 0.5
        scaled = np.exp(logits - logits.max(1, keepdims=True))
        a = scaled / np.add.reduce(scaled.T, axis=0)[:, None]
        b = ordered_matmul(items, self.item) + self.head_bias
        d = ordered_matmul(items, self.dot_item)
        return a.astype(np.float32), b.astype(np.float32), d.astype(np.float32)

    def base(self, user: UserRow, rows: Rows) -> F64:
        """Compute z without the memory `[C]`, in the order of the formula above."""
        hidden = rows.b.astype(np.float64)  # [C, F]
        g, e = user.g.astype(np.float64), user.e.astype(np.float64)
        # Plain loops over l, f and k: each step adds one term to every candidate, so the order of a
        # candidate's additions is fixed.
        for link in range(g.shape[0]):
            hidden += rows.a[:, link, None].astype(np.float64) * g[link]
        np.maximum(hidden, 0.0, out=hidden)
        z = np.zeros(len(hidden))
        for unit in range(len(self.out)):
            z += self.out[unit] * hidden[:, unit]
        for k in range(len(e)):
            z += rows.d[:, k].astype(np.float64) * e[k]
        return z

    def remember(self, features: F32, base: F64) -> F64:
        """Compute z `[M]` of items of a history, from their features `[M, Q]` and base scores `[M]`."""
        return base + self.memory(features, base)

    def memory(self, features: F32, base: F64) -> F64:
        """Compute the boost s `[M]` from the features `[M, Q]` and the base scores `[M]`."""
        inputs = [*features.astype(np.float64).T, base]  # Q + 1 columns of [M]
        hidden = np.tile(self.memory_in_bias[:, None], len(base))  # [Z, M]
        for column, weights in zip(inputs, self.memory_in, strict=True):
            hidden += column * weights[:, None]
        boost = np.full(len(base), self.memory_bias)
        for weight, unit in zip(self.memory_out, np.maximum(hidden, 0.0), strict=True):
            boost += weight * unit
        for column, weight in zip(inputs, self.memory_skip, strict=True):
            boost += column * weight
        return boost


def _weigh(mix: F64, parameter: torch.Tensor, rows: int) -> F64:
    """Return the weighted sum `[rows, *]` of the tasks' blocks of `rows` rows, in the order of the tasks."""
    blocks = _array(parameter).reshape(len(mix), -1)
    return ordered_matmul(mix[None], blocks).reshape(rows, -1)


def _weight(layer: torch.nn.Module) -> F64:
    """Return the weight of a linear layer, transposed for `x @ w`."""
    assert isinstance(layer, torch.nn.Linear)
    return _array(layer.weight.T)


def _bias(layer: torch.nn.Module) -> F64:
    """Return the bias of a linear layer."""
    assert isinstance(layer, torch.nn.Linear)
    return _array(layer.bias)


def _array(tensor: torch.Tensor) -> F64:
    """Copy a tensor to a float64 array."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(np.float64))
