"""Where item embeddings start: an SVD of who took what, and popularity in a coordinate of its own.

Truncated SVD of the row-normalised root counts (PureSVD, Cremonesi et al. 2010).
Coordinate 0 of an item is its recent popularity; the dot reads it with a constant. So
the base score knows popularity and the repeat memory, which sees the base score and
not the bias, can cancel it for the items a user already takes.

Letters: D width.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from lime_model.arrays import Floats
from lime_model.model.features import Catalogue
from lime_model.model.lime import LimeModel
from lime_model.train.examples import EventLog

DOT_SCALE = 0.6  # of the starting dot with the pools
POPULARITY = 0.3  # starting weight of log1p(recent count) in the dot; the bias has the rest of 1


def item_vectors(log: EventLog, catalogue: Catalogue, width: int, seed: int) -> Floats:
    """SVD factors of the items with an id embedding, `[id rows, D]`: row and column 0 zero, mean square 1."""
    counts = sp.vstack([_counts(part, catalogue) for part in log.chunks()], format="csr")
    shape = counts.shape
    counts.data = np.sqrt(counts.data)
    norms = np.sqrt(counts.multiply(counts).sum(1))
    scaled = sp.csr_array(sp.diags_array(1.0 / np.maximum(norms, 1e-9)) @ counts)
    rank = min(width - 1, min(shape) - 1)
    vectors = np.zeros((shape[1], width))
    if rank > 0:
        start = np.random.default_rng(seed).standard_normal(min(shape))
        _, values, right = svds(scaled, k=rank, v0=start)
        vectors[:, 1 : rank + 1] = (right * np.sqrt(values)[:, None])[::-1].T  # the root: half for each side
    vectors[0] = 0.0
    vectors /= np.sqrt(np.linalg.norm(vectors, axis=1, keepdims=True)) + 1e-9  # tame the popular
    scale = float(np.sqrt((vectors**2).mean()))
    start_vectors: Floats = vectors / max(scale, 1e-9)
    return start_vectors


def _counts(log: EventLog, catalogue: Catalogue) -> sp.csr_array:
    """Events of every user and id row `[U, id rows]`."""
    users = log.owners
    shape = (len(log.offsets) - 1, int(catalogue.id_rows.max()) + 1)
    return sp.csr_array((np.ones(len(users)), (users, catalogue.id_rows[log.item])), shape=shape)


def set_start(model: LimeModel, log: EventLog, catalogue: Catalogue, recent: Floats, seed: int) -> None:
    """Item embeddings and dot from the log; `recent` are counts by catalogue row.

    The first item column, if it is a category or a hash, gets the mean vector of its items, which stands
    in for the id of an item too rare to have one; id and first column sum to the SVD vector.
    """
    start = item_vectors(log, catalogue, model.config.width, seed)
    vectors = torch.tensor(start, dtype=torch.float32)
    popular = torch.zeros(len(vectors))
    popular[catalogue.id_rows] = torch.tensor(np.log1p(recent), dtype=torch.float32)
    popular[0] = 0.0  # shared by all items without an id
    size = float(popular.square().mean().sqrt().clamp_min(1e-3))
    with torch.no_grad():
        columns = model.config.item_columns
        if columns and columns[0].kind in ("category", "hash"):
            _take_means(model.items.features.table.weight, vectors, catalogue)
        vectors[:, 0] = popular / size
        model.items.ids.weight.copy_(vectors)
        _set_dot(model, POPULARITY * size)
        model.silence()


def _take_means(table: Tensor, vectors: Tensor, catalogue: Catalogue) -> None:
    """Move the mean vector of every row of the first column from `vectors` to `table`, in place."""
    known = catalogue.id_rows > 0
    slot, rows = (torch.tensor(x[known]) for x in (catalogue.features.slots[:, 0], catalogue.id_rows))
    count = torch.bincount(slot, minlength=len(table)).unsqueeze(1)
    mean = torch.zeros_like(table).index_add_(0, slot, vectors[rows]) / count.clamp_min(1)
    table.copy_(torch.where(count > 0, mean, table))
    vectors[rows] -= table[slot]


def _set_dot(model: LimeModel, popularity: float) -> None:
    """Every dot as the inner product with the mean of the pools, plus `popularity` times coordinate 0."""
    width, pools, dot = model.config.width, model.config.pools, model.config.dot
    eye = torch.eye(dot, width)
    model.dot_item.weight.copy_(eye)
    of_pools = eye.repeat(len(model.config.mix), pools)
    model.dot_pools.weight.copy_(of_pools * DOT_SCALE / pools / width**0.5)
    model.dot_pools.weight[::dot] = 0.0
    model.dot_pools.bias.zero_()
    model.dot_pools.bias[::dot] = popularity
