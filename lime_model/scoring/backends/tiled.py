"""The tiled backend: an fp32 filter in plain torch, on CPU or CUDA, with a proven error bound.

A block of users is scored against the candidates tile by tile, and no buffer is larger than a tile. A pair is
kept only when `approx >= (K-th best approx so far) - 2 ε_u`.

This is exact. Let |approx - published| <= ε_u for every pair of the user. The K-th best approx seen is at
most the final K-th published score + ε_u. A dropped pair has published <= approx + ε_u < K-th approx - ε_u <=
K-th published: it is strictly below, so not even a tie is lost.

The bound: any order of summing n fp32 products errs by at most γ_n Σ|x||y| with γ_n = n u / (1 - n u) and
u = 2⁻²⁴ (Higham, Accuracy and Stability, 2nd ed., §3.1). Along the score's longest path n = L + F + E + 8,
and A_c >= 0 sums to 1 up to rounding, so

    ε_u = γ_n · 1.01 · (Σ_f |w_f| (max_l |G_lf| + max_c |B_cf|) + ‖e_u‖ max_c ‖d_c‖ + max_c |β_c|)

which covers the rounding of the published score as well.

Letters: U users of a block, C candidates, L links,
F hidden units, E width of the dot, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lime_model.arrays import F32, F64, Ints
from lime_model.scoring.backend import Backend
from lime_model.scoring.canonical import Weights
from lime_model.scoring.cells import Cells, Stats
from lime_model.scoring.queries import Query

LOWEST = float(torch.finfo(torch.float32).min)


def error_bound(weights: Weights, users: Sequence[Query], stats: Stats) -> F64:
    """Bound how far the fp32 filter and the published score can differ: ε_u `[U]`.

    Args:
        weights: shared parameters.
        users: the users, at least one.
        stats: largest factors of the candidates.
    """
    links, hidden = users[0].factors.g.shape
    n = links + hidden + len(users[0].factors.e) + 8
    gamma = 1.01 * n * 2.0**-24 / (1 - n * 2.0**-24)
    out = np.abs(weights.out)
    item = out @ stats.b_max + stats.beta_max
    per_user = [
        out @ np.abs(u.factors.g).max(0) + np.linalg.norm(u.factors.e.astype(np.float64)) * stats.d_norm
        for u in users
    ]
    return np.asarray(gamma * (np.asarray(per_user) + item))


@dataclass(frozen=True)
class TiledBackend(Backend):
    """A filter that scores tiles of candidates in fp32.

    Args:
        device: torch device that holds the tiles.
        user_block: users that share a pass over the candidates.
        tile: candidates of one product; `user_block · tile · F` floats should fit a core's L2 cache.
        stripe: candidates between two updates of the thresholds.
    """

    device: str = "cpu"
    user_block: int = 8
    tile: int = 512
    stripe: int = 8192

    def keep(
        self, weights: Weights, users: Sequence[Query], candidates: Cells, seeds: Sequence[F32], k: int
    ) -> list[Ints]:
        """Return rows that may reach the K best of each user; see `Backend.keep`."""
        slack = 2.0 * error_bound(weights, users, candidates.stats)
        out = torch.tensor(weights.out, dtype=torch.float32, device=self.device)
        blocks = [slice(i, i + self.user_block) for i in range(0, len(users), self.user_block)]
        factors = [self._factors(users[block]) for block in blocks]
        margin = torch.tensor(slack, dtype=torch.float32, device=self.device)
        leaders = [Leaders(seeds[block], k, margin[block]) for block in blocks]
        own = [OwnItems(users[block], self.device) for block in blocks]
        torch.backends.cuda.matmul.allow_tf32 = False  # its 11 bits would break the bound
        with torch.inference_mode():
            for start in range(0, len(candidates), self.stripe):
                rows = candidates.slice(start, start + self.stripe)
                bank = tuple(torch.from_numpy(np.ascontiguousarray(x)).to(self.device) for x in rows)
                for (g, e), best, mine in zip(factors, leaders, own, strict=True):
                    scores = self._score_stripe(out, g, e, bank)  # [U, stripe]
                    mine.hide(scores, start)
                    best.offer(scores, start)
        return [rows for best in leaders for rows in best.rows()]

    def _factors(self, users: Sequence[Query]) -> tuple[Tensor, Tensor]:
        """Return G `[U, L, F]` and e `[U, E]` of a block of users."""
        g = torch.from_numpy(np.stack([u.factors.g for u in users])).to(self.device)
        return g, torch.from_numpy(np.stack([u.factors.e for u in users])).to(self.device)

    def _score_stripe(self, out: Tensor, g: Tensor, e: Tensor, bank: tuple[Tensor, ...]) -> Tensor:
        """Return the approximate scores `[U, stripe]` of a stripe."""
        a, b, d, beta = bank
        scores = torch.addmm(beta, e, d.T)  # [U, stripe]
        for start in range(0, len(beta), self.tile):
            part = slice(start, start + self.tile)
            hidden = torch.matmul(a[part], g).add_(b[part]).relu_()  # [U, tile, F]
            scores[:, part] += hidden @ out
        return scores


class OwnItems:
    """The own items of a block of users, sorted by candidate row."""

    def __init__(self, users: Sequence[Query], device: str) -> None:
        rows = [user.memory.rows for user in users]
        owner = np.repeat(np.arange(len(users)), [len(r) for r in rows])
        joined = np.concatenate([np.zeros(0, np.int64), *rows])
        order = np.argsort(joined, kind="stable")
        self.at = joined[order]
        self.row, self.user = torch.from_numpy(self.at).to(device), torch.from_numpy(owner[order]).to(device)

    def hide(self, scores: Tensor, start: int) -> None:
        """Set their scores to -inf in `scores [U, stripe]`, whose first candidate is at row `start`."""
        low, high = np.searchsorted(self.at, [start, start + scores.shape[1]])
        scores[self.user[low:high], self.row[low:high] - start] = -torch.inf


class Leaders:
    """The K best approximations of every user so far, and every pair that may still belong to the K best.

    Args:
        seeds: for every user exact scores that count from the start.
        k: list length.
        slack: `[U]` how far below the K-th best an approximation may be, 2 ε_u.
    """

    def __init__(self, seeds: Sequence[F32], k: int, slack: Tensor) -> None:
        self.k, self.slack = k, slack
        best = np.full((len(seeds), k), LOWEST, np.float32)
        for row, scores in enumerate(seeds):
            top = -np.sort(-scores)[:k]
            best[row, : len(top)] = top
        self.best = torch.from_numpy(best).to(slack.device)  # [U, K], descending
        self.hits: list[tuple[Tensor, Tensor, Tensor]] = []

    def offer(self, scores: Tensor, start: int) -> None:
        """Take the scores `[U, stripe]` of a stripe that begins at row `start`; -inf never counts."""
        first = not self.hits
        if first:  # without a threshold before the first comparison, every pair would pass it
            self._improve(scores.topk(min(self.k, scores.shape[1])).values)
        user, column = (scores >= self._limit().unsqueeze(1)).nonzero(as_tuple=True)
        self.take(user, column + start, scores[user, column], counted=first)

    def take(self, user: Tensor, row: Tensor, value: Tensor, *, counted: bool = False) -> None:
        """Take pairs in user order.

        Args:
            user: places of the users in the block `[n]`.
            row: candidate rows `[n]`.
            value: approximate scores `[n]`.
            counted: the scores have improved the threshold before.
        """
        if len(user) == 0:
            return
        self.hits.append((user, row, value))
        if not counted:
            self._improve(self._padded(user, value))

    def alive(self) -> tuple[Tensor, Tensor]:
        """Return users and rows of the pairs that reach the final thresholds, in user order."""
        if not self.hits:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.slack.device)
            return nothing, nothing
        user, row, value = (torch.cat(parts) for parts in zip(*self.hits, strict=True))
        alive = (value >= self._limit()[user]).nonzero()[:, 0]
        alive = alive[torch.argsort(user[alive], stable=True)]
        return user[alive], row[alive]

    def rows(self) -> list[Ints]:
        """Return the rows of each user that reach the final threshold, ascending."""
        user, row = (side.cpu().numpy() for side in self.alive())
        cuts = np.searchsorted(user, np.arange(1, len(self.best)))
        return [np.sort(rows) for rows in np.split(row, cuts)]

    def _limit(self) -> Tensor:
        return torch.clamp_min(self.best[:, -1] - self.slack, LOWEST)

    def _improve(self, values: Tensor) -> None:
        """Update the K best with scores `[U, n]`."""
        self.best = torch.cat([self.best, values], 1).topk(self.k).values

    def _padded(self, user: Tensor, value: Tensor) -> Tensor:
        """Group hits by user into `[U, most hits of a user]`; they come in user order."""
        counts = torch.bincount(user, minlength=len(self.best))
        first = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(user), device=user.device) - first[user]
        padded = value.new_full((len(self.best), int(counts.max())), LOWEST)
        padded[user, place] = value
        return padded
