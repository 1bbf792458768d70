"""The start of item embeddings: an SVD of which users took which items, and popularity in its own coordinate.

The SVD is a truncated one of the row-normalised root counts (PureSVD, Cremonesi et al. 2010). Coordinate 0 of
an item is its recent popularity, and the dot reads it with a constant. So the base score contains popularity,
and the repeat memory, which reads the base score and not the bias, can cancel it for items that a user
already takes.

Letters: U users, D width.
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
from lime_model.train.event_log import EventLog

DOT_SCALE = 0.6  # starting scale of the dot with the pools
POPULARITY = 0.3  # starting weight of log1p(recent count) in the dot; the bias has the remaining 0.7


def item_vectors(log: EventLog, catalogue: Catalogue, width: int, seed: int) -> Floats:
    """Compute the SVD factors of the items with an id embedding `[id rows, D]`.

    Row 0 and column 0 are zero, and the mean square of all numbers is 1.

    Args:
        log: the events.
        catalogue: the items.
        width: D.
        seed: seed of the SVD's start vector.
    """
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
        # Items and users share the singular values: each side gets their roots.
        vectors[:, 1 : rank + 1] = (right * np.sqrt(values)[:, None])[::-1].T
    vectors[0] = 0.0
    vectors /= np.sqrt(np.linalg.norm(vectors, axis=1, keepdims=True)) + 1e-9  # shrinks popular items
    scale = float(np.sqrt((vectors**2).mean()))
    start_vectors: Floats = vectors / max(scale, 1e-9)
    return start_vectors


def _counts(log: EventLog, catalogue: Catalogue) -> sp.csr_array:
    """Count the events of every user and id row `[U, id rows]`."""
    users = log.owners
    shape = (len(log.offsets) - 1, int(catalogue.id_rows.max()) + 1)
    return sp.csr_array((np.ones(len(users)), (users, catalogue.id_rows[log.item])), shape=shape)


def set_start(model: LimeModel, log: EventLog, catalogue: Catalogue, recent: Floats, seed: int) -> None:
    """Set item embeddings and dot from the log.

    The first item column, if it is a category or a hash, gets the mean vector of its items, which replaces
    the id embedding of items that are too rare to have one. The id embedding and the first column sum to the
    SVD vector.

    Args:
        model: the model to set.
        log: the events.
        catalogue: the items.
        recent: recent events of each catalogue row.
        seed: seed of the SVD.
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
    """Set every dot to the inner product with the mean of the pools, plus `popularity` times coordinate 0."""
    width, pools, dot = model.config.width, model.config.pools, model.config.dot
    eye = torch.eye(dot, width)
    model.dot_item.weight.copy_(eye)
    of_pools = eye.repeat(len(model.config.mix), pools)
    model.dot_pools.weight.copy_(of_pools * DOT_SCALE / pools / width**0.5)
    model.dot_pools.weight[::dot] = 0.0
    model.dot_pools.bias.zero_()
    model.dot_pools.bias[::dot] = popularity
