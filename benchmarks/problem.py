"""The users and candidates of the scoring benchmark, the same for every contestant.

Items form 500 clusters in the tower's space. They are folded by a randomly initialised LIME model whose head
has N(0, 0.3²) weights. Users are random link states; β is 0.3 · log1p of Zipf counts.

Letters: C candidates, L links, F hidden, E dot width, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lime_model.config import MEMORY_FEATURES, ModelConfig
from lime_model.model.lime import LimeModel, UserState
from lime_model.scoring.canonical import Rows, Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Memory, Query

CONFIG = ModelConfig(links=32, width=64, hidden=64, dot=32)
K = 100


class Problem(NamedTuple):
    """The users and candidates, in every form that a contestant needs."""

    model: LimeModel
    weights: Weights
    items: Tensor  # T [C, D]
    rows: Rows
    cells: Cells
    states: list[UserState]
    queries: list[Query]


def make_problem(candidates: int, users: int, config: ModelConfig = CONFIG) -> Problem:
    """Make a problem, which is the same for the same sizes.

    Args:
        candidates: the number of candidates.
        users: the number of users.
        config: the sizes of the model.
    """
    rng = np.random.default_rng(0)
    model = make_model(config)
    weights = Weights.of(model)
    centres = rng.standard_normal((500, config.width))
    spread = 0.5 * rng.standard_normal((candidates, config.width))
    items = torch.tensor(centres[rng.integers(0, 500, candidates)] + spread, dtype=torch.float32)
    beta = (0.3 * np.log1p(rng.zipf(1.5, candidates).clip(0, 1000))).astype(np.float32)
    with torch.inference_mode():
        parts = [weights.fold_items(part.double().numpy()) for part in items.split(512)]
    a, b, d = (np.concatenate(side) for side in zip(*parts, strict=True))
    rows = Rows(a, b, d, beta)
    states, queries = [], []
    for _ in range(users):
        links = 0.7 * rng.standard_normal((config.links, config.width))
        pools = rng.standard_normal((config.pools, config.width))
        user = rng.standard_normal(config.user_width)
        sides = (torch.tensor(x[None], dtype=torch.float32) for x in (links, pools, user))
        states.append(UserState(*sides))
        (row,) = weights.fold_users(links[None], pools[None], user[None])
        queries.append(Query(row, Memory.empty(MEMORY_FEATURES)))
    return Problem(model, weights, items, rows, Cells.pack(rows), states, queries)


def make_model(config: ModelConfig) -> LimeModel:
    """Make a model with random weights; those of the head are large enough for links to matter."""
    torch.manual_seed(0)
    model = LimeModel(config, item_rows=1, item_feature_rows=0, user_feature_rows=0).eval()
    with torch.no_grad():
        model.head_out.weight.normal_(std=0.3)
    return model


def with_history(problem: Problem, users: int, items: int) -> list[Query]:
    """Return queries of users with random excluded candidates.

    Args:
        problem: the users and candidates.
        users: how many of the users.
        items: excluded candidates of each user.
    """
    rng = np.random.default_rng(1)
    queries = []
    for query in problem.queries[:users]:
        rows = np.sort(rng.choice(len(problem.cells), items, replace=False)).astype(np.int64)
        memory = Memory(rows, np.zeros((items, MEMORY_FEATURES), np.float32), np.ones((1, items), np.bool_))
        queries.append(query._replace(memory=memory))
    return queries
