"""Softmax losses of next purchases, which the steps of training minimise.

Letters: B examples, N events, C candidates, D width, J pools, O tasks.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional as F

from lime_model.arrays import Floats, Ints
from lime_model.model.fold import fold_items, fold_users, folded_task_scores
from lime_model.model.lime import Features, History, LimeModel, UserState
from lime_model.recipe import TrainConfig
from lime_model.train.event_log import TrainingData
from lime_model.train.examples import Batch


@dataclass(frozen=True)
class Objective:
    """The losses of one model.

    Args:
        model: the model.
        data: log, catalogue and users.
        config: sizes of the sample, and dropout.
        recent: recent events of the items at each cut `[cuts, I + 1]`.
    """

    model: LimeModel
    data: TrainingData
    config: TrainConfig
    recent: Floats

    @functools.cached_property
    def trainable(self) -> Ints:
        """Catalogue rows of the items that have an id embedding."""
        return np.flatnonzero(self.data.catalogue.id_rows > 0)

    def candidates(self, batch: Batch, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """Draw the candidates of a batch.

        Returns:
            Catalogue rows `[C]`, the batch's positives first and then a sample of the others; and for each
            the log of how many items it represents.
        """
        positive = np.union1d(batch.target_item, batch.fresh_item)
        positive = positive[self.data.catalogue.id_rows[positive] > 0]
        others = np.setdiff1d(self.trainable, positive, assume_unique=True)
        wanted = max(self.config.candidates - len(positive), self.config.candidates // 4)
        size = min(wanted, len(others))
        # All positives are in the sample, and each drawn item represents len(others) / size items: with the
        # log of that added to its score, the sum of exp(score) over the sample has the full sum as its
        # expectation.
        represents = np.ones(len(positive) + size)
        represents[len(positive) :] = len(others) / max(size, 1)
        sample = rng.choice(others, size, replace=False)
        return np.concatenate([positive, sample]), np.log(represents)

    def losses(self, batch: Batch, rng: np.random.Generator, *, links: bool) -> tuple[Tensor, Tensor]:
        """Compute the cross-entropy over all items and over items new to the shown history, means over tasks.

        Args:
            batch: the examples.
            rng: draws the sample.
            links: the score has its links, and candidates are sampled; otherwise it has the dot alone, and
                all items with an id embedding are candidates.
        """
        sample, log_weight = self.candidates(batch, rng) if links else (self.trainable, np.zeros(1))
        column = np.full(len(self.data.catalogue.id_rows), -1)
        column[sample] = np.arange(len(sample))
        z = self.base(batch, sample, links=links)
        bias = self.model.item_bias(torch.tensor(self.recent[batch.cuts][:, sample], dtype=z.dtype))
        shared = bias + torch.tensor(log_weight, dtype=z.dtype)  # [B, C]
        scores = (z + shared.unsqueeze(1)).transpose(1, 2)  # [B, C, O]
        inside = column[batch.memory_item] >= 0
        row, col = torch.tensor(batch.memory_row[inside]), torch.tensor(column[batch.memory_item[inside]])
        base = self.model.weigh(z, 1)[row, col]
        boost = self.model.memory(torch.tensor(batch.memory_features[inside]), base)
        everything = scores.index_put((row, col), boost, accumulate=True)
        shown = torch.tensor(batch.memory_shown[inside])
        unseen = scores.index_put((row[shown], col[shown]), torch.tensor(-1e4, dtype=z.dtype))
        targets = (batch.target_row, column[batch.target_item], batch.target_task)
        fresh = (batch.fresh_row, column[batch.fresh_item], batch.fresh_task)
        return task_loss(everything, *targets), task_loss(unseen, *fresh)

    def base(self, batch: Batch, sample: Ints, *, links: bool) -> Tensor:
        """Compute base scores z `[B, O, C]`.

        Args:
            batch: the examples.
            sample: catalogue rows of the candidates `[C]`.
            links: without, the score is the dot alone, and the dot reads zeros as the link state.
        """
        model, drop = self.model, self.config.dropout
        vectors, place = self._vectors(np.union1d(batch.memory_item, sample))
        items, users = vectors[torch.tensor(place[sample])], Features.of(self.data.users, batch.users)
        pools = F.dropout(self._pools(batch, vectors, place), drop, model.training)
        if not links:
            empty = items.new_zeros(len(pools), model.config.links, model.config.width)
            dot: Tensor = (
                model.dot_vector(UserState(empty, pools, model.users(users))) @ model.dot_item(items).T
            )
            return dot
        state = model.read(embed(model, vectors[torch.tensor(place[batch.item])], batch), users)
        state = state._replace(pools=pools, links=F.dropout(state.links, drop, model.training))
        return folded_task_scores(model, fold_users(model, state), fold_items(model, items))

    def _pools(self, batch: Batch, vectors: Tensor, place: Ints) -> Tensor:
        """Compute the pools `[B, J, D]` of the whole shown history.

        It is a sparse product over the distinct items of the histories, so no events are padded.
        """
        count, pools, _ = batch.type_weights.shape
        row = (batch.memory_row[:, None] * pools + np.arange(pools)).ravel()
        entry = (row, np.repeat(place[batch.memory_item], pools))
        sparse = sp.csr_array((batch.pool_weights.ravel(), entry), shape=(count * pools, len(vectors)))
        weights = _to_torch(sparse)
        types: Tensor = torch.tensor(batch.type_weights) @ self.model.event_type.weight
        return (weights @ vectors).view(count, pools, -1) + types

    def _vectors(self, rows: Ints) -> tuple[Tensor, Ints]:
        """Return T of some catalogue rows, and each catalogue row's place among them."""
        place = np.zeros(len(self.data.catalogue.id_rows), np.int64)
        place[rows] = np.arange(len(rows))
        return self.model.embed_items(self.data.catalogue, rows), place


def embed(model: LimeModel, items: Tensor, batch: Batch) -> History:
    """Embed the events of a batch as histories `[B, N, D]`.

    Args:
        model: the model.
        items: T of the events' items `[B, N, D]`.
        batch: the examples.
    """
    events = model.embed_events(items, torch.tensor(batch.event_type))
    return History(events, torch.tensor(batch.days, dtype=items.dtype), torch.tensor(batch.keep))


def task_loss(scores: Tensor, row: Ints, col: Ints, task: Ints) -> Tensor:
    """Compute the mean over the tasks of their `cross_entropy`.

    Args:
        scores: `[B, C, O]`.
        row: example of each positive.
        col: column of each positive, -1 outside the sample.
        task: task of each positive.
    """
    tasks = scores.shape[2]
    losses = [cross_entropy(scores[:, :, t], row[task == t], col[task == t]) for t in range(tasks)]
    return torch.stack(losses).mean()


def _to_torch(sparse: sp.csr_array) -> Tensor:
    """Return a sparse matrix as a tensor, without the warning that torch's class is in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(
            torch.tensor(sparse.indptr),
            torch.tensor(sparse.indices),
            torch.tensor(sparse.data),
            size=sparse.shape,
            check_invariants=False,
        )


def cross_entropy(scores: Tensor, row: Ints, col: Ints) -> Tensor:
    """Compute the mean over examples of the mean negative log likelihood of their positives.

    It is zero when there are no positives.

    Args:
        scores: `[B, C]`.
        row: example of each positive.
        col: column of each positive; positives outside the sample have -1 and are left out.
    """
    row, col = row[col >= 0], col[col >= 0]
    if len(row) == 0:
        return scores.sum() * 0.0
    count = np.bincount(row, minlength=len(scores))
    weight = torch.tensor(1.0 / count[row], dtype=scores.dtype)
    at = torch.tensor(row)
    loss: Tensor = ((torch.logsumexp(scores, 1)[at] - scores[at, torch.tensor(col)]) * weight).sum()
    return loss / int((count > 0).sum())
