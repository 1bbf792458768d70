"""The alternatives to the engine: torch in three forms, faiss, implicit, Spark ALS and HSTU.

Each keeps the K = 100 best candidates of a user by one score; only the three in torch compute our score.

Letters: C candidates, U users, N events, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pyspark.ml.recommendation import ALS
from pyspark.sql import SparkSession
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.problem import K, Problem
from lime_model.arrays import F32

WIDE = 64  # d of the peers that score by one dot product


def naive(problem: Problem, users: int) -> None:
    """Run the unfolded model for each user, as a batch UDF would call it, on 65,536 candidates at a time."""
    beta = torch.from_numpy(problem.rows.beta)
    with torch.inference_mode():
        for state in problem.states[:users]:
            scores = torch.cat([problem.model.base_scores(state, t)[0] for t in problem.items.split(65_536)])
            torch.topk(scores + beta, K)


def folded(problem: Problem, users: int) -> None:
    """Compute the folded score in eager torch, for all candidates of a user together."""
    a, b, d, beta = (torch.from_numpy(x) for x in problem.rows)
    w = torch.tensor(problem.weights.out, dtype=torch.float32)
    with torch.inference_mode():
        for query in problem.queries[:users]:
            g, e = torch.from_numpy(query.factors.g), torch.from_numpy(query.factors.e)
            torch.topk(torch.relu(a @ g + b) @ w + d @ e + beta, K)


def compiled(problem: Problem, users: int, tile: int = 512) -> Callable[[], object]:
    """Return a run of the folded score under `torch.compile`, for a block of users tile by tile, then `topk`.

    Args:
        problem: the users and candidates.
        users: how many of the users.
        tile: candidates of a tile.
    """
    a, b, d, beta = (torch.from_numpy(x) for x in problem.rows)
    w = torch.tensor(problem.weights.out, dtype=torch.float32)
    g = torch.from_numpy(np.stack([q.factors.g for q in problem.queries[:users]]))
    e = torch.from_numpy(np.stack([q.factors.e for q in problem.queries[:users]]))

    def block(a: Tensor, b: Tensor, d: Tensor, beta: Tensor) -> Tensor:
        return torch.relu(torch.matmul(a, g) + b) @ w + torch.addmm(beta, e, d.T)

    fast = torch.compile(block, dynamic=False)
    whole = len(beta) // tile * tile

    def run() -> None:
        with torch.inference_mode():
            parts = [fast(*(x[i : i + tile] for x in (a, b, d, beta))) for i in range(0, whole, tile)]
            rest = [block(*(x[whole:] for x in (a, b, d, beta)))] if whole < len(beta) else []
            torch.topk(torch.cat(parts + rest, 1), K)

    return run


def faiss_flat(candidates: int, users: int) -> Callable[[], object]:
    """Return a search of faiss IndexFlatIP with d = 64, which computes one dot product for each pair."""
    import faiss  # like implicit, it is installed for the benchmarks only

    faiss.omp_set_num_threads(1)
    queries, items = _dots(candidates, users)
    index = faiss.IndexFlatIP(WIDE)
    index.add(items)
    return lambda: index.search(queries, K)


def implicit_topk(candidates: int, users: int) -> Callable[[], object]:
    """Return a run of implicit's top-k with d = 64, in one thread."""
    from implicit.cpu.topk import topk
    from threadpoolctl import threadpool_limits

    queries, items = _dots(candidates, users)

    def run() -> None:
        with threadpool_limits(1):
            topk(items, queries, K, num_threads=1)

    return run


def spark_als(spark: SparkSession, candidates: int, users: int) -> Callable[[], object]:
    """Return a run of Spark ALS `recommendForAllUsers` of rank 64; untrained factors cost the same time.

    Args:
        spark: the session.
        candidates: the number of candidates.
        users: the number of users.
    """
    pairs = spark.range(max(candidates, users)).selectExpr(
        f"cast(id % {users} as int) user", f"cast(id % {candidates} as int) item", "1.0f rating"
    )
    als = ALS(rank=WIDE, maxIter=0, userCol="user", itemCol="item", ratingCol="rating", seed=0)
    model = als.fit(pairs)
    model.userFactors.cache().count()
    model.itemFactors.cache().count()
    return lambda: model.recommendForAllUsers(K).write.format("noop").mode("overwrite").save()


def _dots(candidates: int, users: int) -> tuple[F32, F32]:
    rng = np.random.default_rng(0)
    items = rng.standard_normal((candidates, WIDE)).astype(np.float32)
    return rng.standard_normal((users, WIDE)).astype(np.float32), items


class Hstu(nn.Module):
    """Three HSTU blocks (arXiv:2402.17152) that score each candidate against the history.

    A candidate follows the history in the sequence. It attends to the history and to itself, never to another
    candidate. The keys and values of the history are computed once for each user, as in a tuned server.
    """

    def __init__(self, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.project = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(blocks))
        self.after = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.score = nn.Linear(width, 1)

    def forward(self, events: Tensor, candidates: Tensor, tile: int = 512) -> Tensor:
        """Return scores `[C]`.

        Args:
            events: the history `[N, D]`.
            candidates: the candidates `[C, D]`.
            tile: rows of attention that are computed together.
        """
        keys, values = self.read(events, tile)
        return torch.cat([self._tile(part, keys, values) for part in candidates.split(tile)])

    def read(self, events: Tensor, tile: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return keys and values `[N, D]` of the history in every block; event i reads events up to i."""
        keys, values, x, n = [], [], events, len(events)
        for layer in range(len(self.norms)):
            u, q, k, v = self._branches(layer, x)
            keys.append(k)
            values.append(v)
            read = torch.cat(
                [
                    (F.silu(q[i : i + tile] @ k[: i + tile].T).tril(i) / n) @ v[: i + tile]
                    for i in range(0, n, tile)
                ]
            )
            x = x + self.out[layer](self.after[layer](read) * u)
        return keys, values

    def _tile(self, x: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        n = len(keys[0]) + 1
        for layer, (k, v) in enumerate(zip(keys, values, strict=True)):
            u, q, own_k, own_v = self._branches(layer, x)
            own = F.silu((q * own_k).sum(1, keepdim=True)) * own_v
            read = (F.silu(q @ k.T) @ v + own) / n  # [T, N] is the largest buffer
            x = x + self.out[layer](self.after[layer](read) * u)
        scores: Tensor = self.score(x)[:, 0]
        return scores

    def _branches(self, layer: int, x: Tensor) -> tuple[Tensor, ...]:
        return F.silu(self.project[layer](self.norms[layer](x))).chunk(4, -1)
