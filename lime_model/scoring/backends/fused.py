"""The Triton backend: links, ReLU, head and dot of a tile in one kernel on tensor cores.

The bank stays on the device, its link weights also in fp16. A block of users is scored against a stripe of
candidates: the kernel multiplies links in fp16 and adds in fp32, and a pair is kept when it may reach the
user's K best within the bound below. Kept pairs are scored again in fp32 with the bound of tiled.py, and
those that pass are scored canonically, as with every backend.

The bound: link weights sum to 1 up to `drift`, so a constant m_f can move from G to B:
A·G + B = A·(G - m) + (B + m) + (A·1 - 1)·m, with m_f the middle of G's column f and r_f half its range.
(G - m) / r lies in [-1, 1], where fp16 errs by at most u|x| + 2⁻²⁵ with u = 2⁻¹¹, and the same holds for A in
[0, 1]. (fp16 has three bits more than bf16, at the same speed.) Hence

    |approx - exact| <= Σ_f |w_f| (((2u + u²)(1 + drift) + (L + 1) 2⁻²⁴) r_f + drift |m_f|)

in addition to the bound of an fp32 sum, which is taken four times: m makes the terms up to twice as large,
and tensor cores may truncate where IEEE rounds.

On a machine without a GPU the kernel runs in Triton's interpreter (TRITON_INTERPRET=1), as it does in the
tests.

Letters: U users of a block, C candidates, L links,
F hidden units, E width of the dot, K list length, n pairs; LP and FP are L and F padded for
`tl.dot`, and the kernel's T is the candidates of a tile.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from lime_model.arrays import F32, F64, Ints
from lime_model.scoring.backend import Backend
from lime_model.scoring.backends.tiled import Leaders, OwnItems, error_bound
from lime_model.scoring.canonical import Weights
from lime_model.scoring.cells import Cells, Stats
from lime_model.scoring.queries import Query

UNIT = 2.0**-11  # unit roundoff of fp16
PER = 16  # users of one program


@triton.jit  # type: ignore[untyped-decorator]
def _add_hidden(  # type: ignore[no-untyped-def]  # pointers and sizes of the compiler
    a, b, g, middle, reach, w, scores, count, stride,
    users, L: tl.constexpr, F: tl.constexpr, LP: tl.constexpr, FP: tl.constexpr, T: tl.constexpr,
    PER: tl.constexpr,
):  # fmt: skip
    """Add w . relu(r_u A_c . ((G_u - m_u) / r_u) + B_c + m_u) to scores[u, c] for a tile and PER users."""
    rows = tl.program_id(0) * T + tl.arange(0, T)
    first = tl.program_id(1) * PER
    links, units = tl.arange(0, LP), tl.arange(0, FP)
    live, unit = rows < count, units < F
    weights = tl.load(
        a + rows[:, None] * L + links[None, :], live[:, None] & (links < L)[None, :], 0.0
    )  # [T, LP] fp16
    start = tl.load(b + rows[:, None] * F + units[None, :], live[:, None] & unit[None, :], 0.0)
    out = tl.load(w + units, unit, 0.0)
    for user in range(first, min(first + PER, users)):  # the tile stays in registers
        factors = tl.load(
            g + user * L * F + links[:, None] * F + units[None, :], (links < L)[:, None] & unit[None, :], 0.0
        )  # [LP, FP] fp16
        shift = tl.load(middle + user * F + units, unit, 0.0)
        scale = tl.load(reach + user * F + units, unit, 0.0)
        hidden = tl.dot(weights, factors) * scale[None, :] + (start + shift[None, :])  # fp32 sums
        total = tl.sum(tl.maximum(hidden, 0.0) * out[None, :], 1)
        at = scores + user * stride + rows
        tl.store(at, tl.load(at, live, 0.0) + total, live)


def fp16_bound(weights: Weights, users: Sequence[Query], stats: Stats) -> F64:
    """Bound how far the fp16 pass and the published score can differ: ε_u `[U]`.

    Args:
        weights: shared parameters.
        users: the users, at least one.
        stats: largest factors of the candidates.
    """
    out, extra = np.abs(weights.out), []
    for user in users:
        g = user.factors.g.astype(np.float64)
        middle, reach = (g.max(0) + g.min(0)) / 2, (g.max(0) - g.min(0)) / 2
        relative = (2 * UNIT + UNIT**2) * (1 + stats.drift) + (len(g) + 1) * 2.0**-24
        extra.append(1.0001 * (out @ (relative * reach + stats.drift * np.abs(middle))))
    return 4.0 * error_bound(weights, users, stats) + np.asarray(extra)


@dataclass(frozen=True)
class TritonBackend(Backend):
    """A filter that scores stripes of candidates with the kernel above.

    Args:
        device: a CUDA device; "cpu" works in Triton's interpreter only.
        user_block: users that share a pass over the candidates.
        first: candidates of the first stripe, which sets the thresholds.
        stripe: candidates between two later updates of the thresholds.
        tile: candidates of one program.
    """

    device: str = "cuda"
    user_block: int = 64
    first: int = 65536
    stripe: int = 2**20
    tile: int = 128

    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Return rows that may reach the K best of each user; see `Backend.keep`."""
        torch.backends.cuda.matmul.allow_tf32 = False  # its 11 bits would break the bound
        with torch.inference_mode():
            bank = _Bank.of(candidates, self.device)
            kept = []
            for start in range(0, len(users), self.user_block):
                part = slice(start, start + self.user_block)
                kept += self._keep_block(weights, users[part], bank, seeds[part], k)
        return kept

    def _keep_block(
        self, weights: Weights, users: Sequence[Query], bank: _Bank, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        w = torch.tensor(weights.out, dtype=torch.float32, device=self.device)
        g = torch.from_numpy(np.stack([u.factors.g for u in users])).to(self.device)  # [U, L, F]
        e = torch.from_numpy(np.stack([u.factors.e for u in users])).to(self.device)  # [U, E]
        middle = (g.amax(1) + g.amin(1)) / 2  # [U, F]
        reach = ((g.amax(1) - g.amin(1)) / 2).clamp_min(torch.finfo(torch.float32).tiny)
        unit = ((g - middle.unsqueeze(1)) / reach.unsqueeze(1)).half().contiguous()  # in [-1, 1]
        rough = Leaders(seeds, k, self._slack(fp16_bound(weights, users, bank.stats)))
        own = OwnItems(users, self.device)
        first = 0
        while first < len(bank.beta):
            part = slice(first, first + (self.stripe if first else self.first))
            scores = self._score_stripe(bank, part, (unit, middle, reach, w), e)
            own.hide(scores, first)
            rough.offer(scores, first)
            first = part.stop
        user, row = rough.alive()
        fine = Leaders(seeds, k, self._slack(error_bound(weights, users, bank.stats)))
        fine.take(user, row, bank.scores(g, e, w, user, row))
        return fine.rows()

    def _slack(self, bound: F64) -> Tensor:
        return torch.tensor(2.0 * bound, dtype=torch.float32, device=self.device)

    def _score_stripe(self, bank: _Bank, part: slice, links: tuple[Tensor, ...], e: Tensor) -> Tensor:
        """Return the scores `[U, stripe]` of a stripe; `links` are (G - m) / r in fp16, m, r and w."""
        scores = torch.addmm(bank.beta[part], e, bank.d[part].T).contiguous()
        users, width, hidden = links[0].shape
        count = scores.shape[1]
        _add_hidden[(triton.cdiv(count, self.tile), triton.cdiv(users, PER))](
            bank.short[part], bank.b[part], *links, scores, count, count, users,
            L=width, F=hidden, LP=_padded(width), FP=_padded(hidden), T=self.tile, PER=PER,
        )  # fmt: skip
        return scores


@dataclass(frozen=True)
class _Bank:
    """The candidates as they stay on the device: `a [C, L]` twice, `b [C, F]`, `d [C, E]`, `beta [C]`."""

    a: Tensor
    short: Tensor  # a in fp16
    b: Tensor
    d: Tensor
    beta: Tensor
    stats: Stats

    @classmethod
    def of(cls, candidates: Cells, device: str) -> _Bank:
        """Send a shard to the device once and keep it there as long as the shard exists.

        Workers score many batches against the same shard.
        """
        key = (id(candidates.words), device)
        if key not in _RESIDENT:
            rows = candidates.slice(0, len(candidates))
            a, b, d, beta = (torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in rows)
            _RESIDENT[key] = cls(a, a.half(), b, d, beta, candidates.stats)
            weakref.finalize(candidates.words, _RESIDENT.pop, key, None)
        return _RESIDENT[key]

    def scores(
        self, g: Tensor, e: Tensor, w: Tensor, user: Tensor, row: Tensor, *, chunk: int = 4096
    ) -> Tensor:
        """Compute the fp32 scores `[n]` of pairs of users and rows."""
        parts = [torch.zeros(0, device=self.beta.device)]
        for u, r in zip(user.split(chunk), row.split(chunk), strict=True):
            hidden = torch.bmm(self.a[r].unsqueeze(1), g[u])[:, 0].add_(self.b[r]).relu_()  # [n, F]
            parts.append(hidden @ w + ((self.d[r] * e[u]).sum(1) + self.beta[r]))
        return torch.cat(parts)


_RESIDENT: dict[tuple[int, str], _Bank] = {}


def _padded(size: int) -> int:
    """Pad a size for `tl.dot`, which wants powers of two from 16 on."""
    return max(16, triton.next_power_of_2(size))
