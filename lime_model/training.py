"""Training: next purchases from histories, by softmax over sampled candidates.

Recipe. Weekly cuts, recent ones favoured; the targets are the items of the following
weeks. Candidates are every positive of the batch and a uniform sample of the other items
with an id embedding, whose exp(score) counts for all of those left out, so that the
softmax denominator is unbiased. Two losses: over everything with the repeat memory, and
over items new to the history, where a random share of the history is hidden and asked
back. Item embeddings start from a truncated SVD of the row-normalised root counts
(PureSVD, Cremonesi et al. 2010), which alone finds new items better than popularity does.

Letters: B examples, N events, S candidates, D width.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from torch import Tensor
from torch.nn import functional as F

from lime_model.config import TrainConfig
from lime_model.examples import Batch, EventLog, ExampleBuilder, Floats, Ints
from lime_model.features import Catalogue
from lime_model.model import History, LimeModel
from lime_model.scoring.fold import fold_items, fold_users, folded_scores

log = logging.getLogger(__name__)

DOT_SCALE = 0.6  # of the starting dot, where it is as sure as the next purchases warrant


@dataclass(frozen=True)
class TrainingData:
    """The log and the item side of it; `users [U, columns]` are user feature codes."""

    log: EventLog
    catalogue: Catalogue
    users: Ints


def initial_item_vectors(data: TrainingData, width: int, seed: int) -> Floats:
    """SVD factors of the items with an id embedding, `[id rows, D]`, row 0 zero, mean square 1."""
    rows = data.catalogue.id_rows[data.log.item]
    users = np.repeat(np.arange(len(data.log.offsets) - 1), np.diff(data.log.offsets))
    shape = (len(data.log.offsets) - 1, int(data.catalogue.id_rows.max()) + 1)
    counts = sp.csr_array((np.ones(len(rows)), (users, rows)), shape=shape)
    counts.data = np.sqrt(counts.data)
    norms = np.sqrt(counts.multiply(counts).sum(1))
    scaled = sp.csr_array(sp.diags_array(1.0 / np.maximum(norms, 1e-9)) @ counts)
    rank = min(width, min(shape) - 1)
    vectors = np.zeros((shape[1], width))
    if rank > 0:
        start = np.random.default_rng(seed).standard_normal(min(shape))
        _, values, right = svds(scaled, k=rank, v0=start)
        vectors[:, :rank] = (right * np.sqrt(values)[:, None])[::-1].T  # the root: half for each side
    vectors[0] = 0.0
    vectors /= np.sqrt(np.linalg.norm(vectors, axis=1, keepdims=True)) + 1e-9  # tame the popular
    return vectors / max(np.sqrt((vectors**2).mean()), 1e-9)


def start_from_svd(model: LimeModel, data: TrainingData, seed: int) -> None:
    """Set id embeddings and first feature table so that their sum is the SVD vector.

    The first item column gets the mean vector of its items: it stands in for the id of an
    item too rare to have one. The dot starts as the plain inner product with the pools.
    """
    width, config = model.config.width, model.config
    vectors = torch.tensor(initial_item_vectors(data, width, seed), dtype=torch.float32)
    id_rows, codes = data.catalogue.id_rows, data.catalogue.codes
    with torch.no_grad():
        if codes.shape[1]:
            table = model.items.features.tables[0]
            known = id_rows > 0
            code = torch.tensor(codes[known, 0])
            mean = torch.zeros_like(table.weight).index_add_(0, code, vectors[id_rows[known]])
            count = torch.bincount(code, minlength=len(mean)).clamp_min(1).unsqueeze(1)
            table.weight.copy_(mean / count)
            vectors[id_rows[known]] -= table.weight[code]
        model.items.ids.weight.copy_(vectors)
        eye = torch.eye(config.dot, width)
        model.dot_item.weight.copy_(eye)
        model.dot_pools.weight.copy_(eye.repeat(1, config.pools) * DOT_SCALE / config.pools / width**0.5)


class Trainer:
    """Owns model, optimiser and random state of one run; deterministic by seed."""

    def __init__(self, model: LimeModel, data: TrainingData, config: TrainConfig) -> None:
        self.model, self.data, self.config = model, data, config
        self.rng = np.random.default_rng(config.seed)
        span = np.arange(-config.horizon_days, -config.first_cut_days - 1, -config.cut_every_days)
        self.builder = ExampleBuilder(
            data.log,
            np.ascontiguousarray(span[::-1]),
            config.horizon_days,
            config.max_events,
            config.hide_share,
            model.config.memory_days,
        )
        self.users, self.cuts = self.builder.valid(config.min_events)
        if len(self.users) == 0:
            raise ValueError(
                f"no user has {config.min_events} events before a cut and one in the {config.horizon_days:g} "
                "days after it; lower train.min_events or give more history"
            )
        age = -self.builder.cuts[self.cuts]
        weight = 0.5 ** (age / config.cut_half_life_days)
        self.probability = weight / weight.sum()
        self.trainable = np.flatnonzero(data.catalogue.id_rows > 0)
        self.recent = recent_counts(data, self.builder.cuts, model.config.bias_days)
        memory = list(model.memory.parameters())
        rest = [p for name, p in model.named_parameters() if not name.startswith("memory.")]
        self.rates = [config.learning_rate, config.learning_rate * config.memory_rate]
        self.optimiser = torch.optim.AdamW(
            [{"params": rest}, {"params": memory}], lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def fit(self) -> list[dict[str, float]]:
        """Run all steps; returns the curve, a row per fifty steps."""
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, self.rates, self.config.steps, pct_start=0.1
        )
        curve, total, started = [], [], time.monotonic()
        self.model.train()
        for step in range(1, self.config.steps + 1):
            total.append(self.step())
            schedule.step()
            if step % 50 == 0 or step == self.config.steps:
                loss_all, loss_new = np.mean(total, 0)
                rate = step / (time.monotonic() - started)
                log.info(
                    "step %d/%d loss %.4f new %.4f, %.1f steps/s, %.0f s left",
                    step, self.config.steps, loss_all, loss_new, rate, (self.config.steps - step) / rate,
                )  # fmt: skip
                curve.append({"step": step, "loss": float(loss_all), "loss_new": float(loss_new)})
                total = []
        self.model.eval()
        return curve

    def step(self) -> tuple[float, float]:
        """One optimiser step; returns the two losses in nats per positive.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        chosen = self.rng.choice(len(self.users), self.config.batch, p=self.probability)
        batch = self.builder.build(self.users[chosen], self.cuts[chosen], self.rng)
        loss_all, loss_new = self.losses(batch, *self.candidates(batch))
        loss = loss_all + loss_new
        if not torch.isfinite(loss):
            users = batch.users.tolist()
            raise FloatingPointError(f"loss is {loss.item()} for users {users}; lower train.learning_rate")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss_all.item(), loss_new.item()

    def candidates(self, batch: Batch) -> tuple[Ints, Floats]:
        """Rows `[S]`: the batch's positives, then sampled others; and log of the items each stands for."""
        positive = np.union1d(batch.target_item, batch.fresh_item)
        positive = positive[self.data.catalogue.id_rows[positive] > 0]
        others = np.setdiff1d(self.trainable, positive, assume_unique=True)
        wanted = max(self.config.candidates - len(positive), self.config.candidates // 4)
        size = min(wanted, len(others))
        stands_for = np.ones(len(positive) + size)
        stands_for[len(positive) :] = len(others) / max(size, 1)
        sample = self.rng.choice(others, size, replace=False)
        return np.concatenate([positive, sample]), np.log(stands_for)

    def losses(self, batch: Batch, sample: Ints, log_weight: Floats) -> tuple[Tensor, Tensor]:
        """Cross-entropy over everything and over items new to the shown history."""
        model, drop = self.model, self.config.dropout
        column = np.full(len(self.data.catalogue.id_rows), -1)
        column[sample] = np.arange(len(sample))
        vectors, place = self._vectors(np.union1d(batch.item, sample))
        history = embed(model, vectors[place[batch.item]], batch)
        state = model.read(history, torch.tensor(self.data.users[batch.users]))
        state = state._replace(pools=F.dropout(state.pools, drop), links=F.dropout(state.links, drop))
        z = folded_scores(model, fold_users(model, state), fold_items(model, vectors[place[sample]]))
        bias = model.item_bias(torch.tensor(self.recent[batch.cuts][:, sample], dtype=z.dtype))
        scores = z + bias + torch.tensor(log_weight, dtype=z.dtype)
        inside = column[batch.memory_item] >= 0
        row, col = torch.tensor(batch.memory_row[inside]), torch.tensor(column[batch.memory_item[inside]])
        boost = model.memory(torch.tensor(batch.memory_features[inside]), z[row, col])
        everything = scores.index_put((row, col), boost, accumulate=True)
        shown = torch.tensor(batch.memory_shown[inside])
        unseen = scores.index_put((row[shown], col[shown]), torch.tensor(-1e4, dtype=z.dtype))
        return (
            _cross_entropy(everything, batch.target_row, column[batch.target_item]),
            _cross_entropy(unseen, batch.fresh_row, column[batch.fresh_item]),
        )

    def _vectors(self, rows: Ints) -> tuple[Tensor, Ints]:
        """T of the catalogue rows needed this step, and where each row landed."""
        place = np.zeros(len(self.data.catalogue.id_rows), np.int64)
        place[rows] = np.arange(len(rows))
        catalogue = self.data.catalogue
        ids, codes = torch.tensor(catalogue.id_rows[rows]), torch.tensor(catalogue.codes[rows])
        return self.model.items(ids, codes), place


def embed(model: LimeModel, items: Tensor, batch: Batch) -> History:
    """Event embeddings: item plus event type, `[B, N, D]`."""
    events = items + model.event_type(torch.tensor(batch.event_type))
    return History(events, torch.tensor(batch.days, dtype=items.dtype), torch.tensor(batch.keep))


def recent_counts(data: TrainingData, cuts: Floats, window: float) -> Floats:
    """Events of every catalogue row in the `window` days before each cut, `[cuts, I + 1]`."""
    counts = np.zeros((len(cuts), len(data.catalogue.id_rows)))
    for index, cut in enumerate(cuts):
        inside = (data.log.days >= cut - window) & (data.log.days < cut)
        counts[index] = np.bincount(data.log.item[inside], minlength=counts.shape[1])
    return counts


def _cross_entropy(scores: Tensor, row: Ints, col: Ints) -> Tensor:
    """Mean negative log likelihood of the positives inside the sample; zero when there are none."""
    row, col = row[col >= 0], col[col >= 0]
    if len(row) == 0:
        return scores.sum() * 0.0
    return -torch.log_softmax(scores, 1)[torch.tensor(row), torch.tensor(col)].mean()
