"""Training in two phases: next purchases from histories, by softmax.

Weekly cuts, recent ones favoured; the targets are the items of the following weeks.
Two losses, each a mean over examples: over everything with the repeat memory, and over
items new to the history, where a random share of the history is hidden and asked back.

1. Towers: dot, bias and memory, with the softmax over all items with an id embedding.
   The links are off, so a step is a matrix product and batches are large.
2. Links: the whole model, over every positive of the batch and a uniform sample of the
   other items, whose exp(score) counts for those left out, so that the softmax
   denominator is unbiased. The links start at zero effect (see `LimeModel`).

Letters: B examples, N events, S candidates, D width, J pools, T tasks.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.config import TrainConfig
from lime_model.examples import Batch, EventLog, ExampleBuilder, Floats, Ints, item_fame
from lime_model.features import Catalogue
from lime_model.model import History, LimeModel, UserState
from lime_model.scoring.fold import fold_items, fold_users, folded_task_scores
from lime_model.svd_start import set_start

log = logging.getLogger(__name__)

LINK_PARTS = ("links.", "reader.", "head.", "head_out.")


@dataclass(frozen=True)
class TrainingData:
    """The log and the item side of it; `users [U, columns]` are user feature codes."""

    log: EventLog
    catalogue: Catalogue
    users: Ints


def start_from_svd(model: LimeModel, data: TrainingData, seed: int) -> None:
    """Start item embeddings and dot from the log; see `lime_model/svd_start.py`."""
    recent = recent_counts(data, np.zeros(1), model.config.bias_days)[0]
    set_start(model, data.log, data.catalogue, recent, seed)


class Trainer:
    """Owns model, data and random state of one run; deterministic by seed."""

    def __init__(self, model: LimeModel, data: TrainingData, config: TrainConfig) -> None:
        self.model, self.data, self.config = model, data, config
        self.rng = np.random.default_rng(config.seed)
        span = np.arange(-config.horizon_days, -config.first_cut_days - 1, -config.cut_every_days)
        cuts, rows = np.ascontiguousarray(span[::-1]), len(data.catalogue.id_rows)
        fame = [item_fame(data.log, cut, model.config.bias_days, rows) for cut in cuts]
        self.builder = ExampleBuilder(
            log=data.log,
            cuts=cuts,
            horizon_days=config.horizon_days,
            max_events=config.max_events,
            hide_share=config.hide_share,
            decay_days=model.config.memory_days,
            pool_days=model.config.pool_days,
            fame=np.stack(fame),
            event_types=model.event_type.num_embeddings,
            tasks=tuple(model.config.event_types.index(name) + 1 for name in model.config.tasks),
        )
        self.users, self.cuts = self.builder.valid(config.min_events)
        if len(self.users) == 0:
            raise ValueError(
                f"no user has {config.min_events} events before a cut and one in the {config.horizon_days:g} "
                "days after it; lower train.min_events or give more history"
            )
        weight = 0.5 ** (-self.builder.cuts[self.cuts] / config.cut_half_life_days)
        self.probability = weight / weight.sum()
        self.trainable = np.flatnonzero(data.catalogue.id_rows > 0)
        self.recent = np.expm1(self.builder.fame[:, :, 0]).round()
        self.start = model.items.ids.weight.detach().clone()
        self.curve: list[dict[str, float]] = []

    def fit(self) -> list[dict[str, float]]:
        """Run both phases; returns the curve, a row per fifty steps."""
        self.fit_towers()
        return self.fit_links()

    def fit_towers(self) -> None:
        """The first phase: everything but the links."""
        torch.manual_seed(self.config.seed)  # of dropout
        parts = self._parts()
        rates = [(parts["towers"], self.config.learning_rate), (parts["memory"], self.config.memory_rate)]
        self._phase(rates, self.config.steps, links=False)

    def adopt(self, model: LimeModel) -> Trainer:
        """A trainer of another variant that stands where this one's towers do.

        The first phase never looks at the links, so training them there would give the same towers.
        """
        towers = {k: v for k, v in self.model.state_dict().items() if not k.startswith(LINK_PARTS)}
        model.load_state_dict(towers, strict=False)
        other = copy.copy(self)
        other.model, other.rng, other.curve = model, copy.deepcopy(self.rng), list(self.curve)
        return other

    def fit_links(self) -> list[dict[str, float]]:
        """The second phase: the links, and the rest at lower rates; returns the whole curve."""
        torch.manual_seed(self.config.seed)
        parts, config, share = self._parts(), self.config, self.config.tower_share
        late = [(parts["towers"], config.link_rate * share), (parts["memory"], config.memory_rate * share)]
        self._phase([*late, (parts["links"], config.link_rate)], config.link_steps, links=True)
        self.model.eval()
        return self.curve

    def _parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the rate they are trained at."""
        parts: dict[str, list[nn.Parameter]] = {"links": [], "memory": [], "towers": []}
        for name, parameter in self.model.named_parameters():
            kind = "links" if name.startswith(LINK_PARTS) else name.split(".")[0]
            parts[kind if kind in parts else "towers"].append(parameter)
        return parts

    def _phase(self, rates: list[tuple[list[nn.Parameter], float]], steps: int, *, links: bool) -> None:
        """`steps` steps over (parameters, highest learning rate) pairs; extends the curve."""
        if steps < 1:
            return
        self.model.train()
        groups = [{"params": parameters} for parameters, _ in rates]
        optimiser = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [r for _, r in rates], steps, pct_start=0.1)
        before = int(self.curve[-1]["step"]) if self.curve else 0
        total, started = [], time.monotonic()
        for step in range(1, steps + 1):
            total.append(self.step(optimiser, links=links))
            schedule.step()
            if step % 50 == 0 or step == steps:
                loss_all, loss_new = (float(x) for x in np.mean(total, 0))
                rate = step / (time.monotonic() - started)
                log.info(
                    "%s step %d/%d loss %.4f new %.4f, %.1f steps/s, %.0f s left",
                    "links" if links else "towers",
                    step, steps, loss_all, loss_new, rate, (steps - step) / rate,
                )  # fmt: skip
                self.curve.append({"step": before + step, "loss": loss_all, "loss_new": loss_new})
                total = []

    def step(self, optimiser: torch.optim.Optimizer, *, links: bool) -> tuple[float, float]:
        """One optimiser step; returns the two losses in nats per positive, averaged over examples.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        size = self.config.link_batch if links else self.config.batch
        chosen = self.rng.choice(len(self.users), size, p=self.probability)
        batch = self.builder.build(self.users[chosen], self.cuts[chosen], self.rng)
        sample, log_weight = self.candidates(batch) if links else (self.trainable, np.zeros(1))
        loss_all, loss_new = self.losses(batch, sample, log_weight, links=links)
        loss = loss_all + loss_new
        if not torch.isfinite(loss):
            users = batch.users.tolist()
            raise FloatingPointError(f"loss is {loss.item()} for users {users}; lower train.learning_rate")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            self.model.items.ids.weight.lerp_(self.start, self.config.id_decay)
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

    def losses(self, batch: Batch, sample: Ints, log_weight: Floats, *, links: bool) -> tuple[Tensor, Tensor]:
        """Cross-entropy over everything and over items new to the shown history, means over the tasks."""
        column = np.full(len(self.data.catalogue.id_rows), -1)
        column[sample] = np.arange(len(sample))
        z = self._base(batch, sample, links=links)
        bias = self.model.item_bias(torch.tensor(self.recent[batch.cuts][:, sample], dtype=z.dtype))
        shared = bias + torch.tensor(log_weight, dtype=z.dtype)  # [B, S]
        scores = (z + shared.unsqueeze(1)).transpose(1, 2)  # [B, S, T]
        inside = column[batch.memory_item] >= 0
        row, col = torch.tensor(batch.memory_row[inside]), torch.tensor(column[batch.memory_item[inside]])
        base = self.model.weigh(z, 1)[row, col]
        boost = self.model.memory(torch.tensor(batch.memory_features[inside]), base)
        everything = scores.index_put((row, col), boost, accumulate=True)
        shown = torch.tensor(batch.memory_shown[inside])
        unseen = scores.index_put((row[shown], col[shown]), torch.tensor(-1e4, dtype=z.dtype))
        targets = (batch.target_row, column[batch.target_item], batch.target_task)
        fresh = (batch.fresh_row, column[batch.fresh_item], batch.fresh_task)
        return _task_loss(everything, *targets), _task_loss(unseen, *fresh)

    def _base(self, batch: Batch, sample: Ints, *, links: bool) -> Tensor:
        """Base scores z `[B, T, S]`; without links only the dot, which then sees zeros for the link state."""
        model, drop = self.model, self.config.dropout
        vectors, place = self._vectors(np.union1d(batch.memory_item, sample))
        items, codes = vectors[torch.tensor(place[sample])], torch.tensor(self.data.users[batch.users])
        pools = F.dropout(self._pools(batch, vectors, place), drop)
        if not links:
            empty = items.new_zeros(len(codes), model.config.links, model.config.width)
            dot: Tensor = (
                model.dot_vector(UserState(empty, pools, model.users(codes))) @ model.dot_item(items).T
            )
            return dot
        state = model.read(embed(model, vectors[torch.tensor(place[batch.item])], batch), codes)
        state = state._replace(pools=pools, links=F.dropout(state.links, drop))
        return folded_task_scores(model, fold_users(model, state), fold_items(model, items))

    def _pools(self, batch: Batch, vectors: Tensor, place: Ints) -> Tensor:
        """`[B, J, D]` of the whole shown history: a sparse product over distinct items, no padded events."""
        count, pools, _ = batch.type_weights.shape
        row = (batch.memory_row[:, None] * pools + np.arange(pools)).ravel()
        entry = (row, np.repeat(place[batch.memory_item], pools))
        sparse = sp.csr_array((batch.pool_weights.ravel(), entry), shape=(count * pools, len(vectors)))
        weights = torch.sparse_csr_tensor(
            torch.tensor(sparse.indptr),
            torch.tensor(sparse.indices),
            torch.tensor(sparse.data),
            size=sparse.shape,
            check_invariants=False,
        )
        types: Tensor = torch.tensor(batch.type_weights) @ self.model.event_type.weight
        return (weights @ vectors).view(count, pools, -1) + types

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


def _task_loss(scores: Tensor, row: Ints, col: Ints, task: Ints) -> Tensor:
    """Mean over the tasks of `_cross_entropy`; `scores [B, S, T]`, `task` of each positive."""
    tasks = scores.shape[2]
    losses = [_cross_entropy(scores[:, :, t], row[task == t], col[task == t]) for t in range(tasks)]
    return torch.stack(losses).mean()


def _cross_entropy(scores: Tensor, row: Ints, col: Ints) -> Tensor:
    """Mean over examples of the mean negative log likelihood of their positives; zero when there are none.

    Args:
        scores: `[B, S]`.
        row: example of each positive.
        col: column of each positive, -1 outside the sample: left out.
    """
    row, col = row[col >= 0], col[col >= 0]
    if len(row) == 0:
        return scores.sum() * 0.0
    count = np.bincount(row, minlength=len(scores))
    weight = torch.tensor(1.0 / count[row], dtype=scores.dtype)
    at = torch.tensor(row)
    loss: Tensor = ((torch.logsumexp(scores, 1)[at] - scores[at, torch.tensor(col)]) * weight).sum()
    return loss / int((count > 0).sum())
