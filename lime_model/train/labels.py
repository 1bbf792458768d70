"""Training on labels: the chance that an event's label is 1, from the history before its session.

Every labelled event of a log is a target; windows of consecutive events share a history
(`lime_model/train/windows.py`), whose actions show the labels that were given (`ModelConfig.labelled`). Binary
cross-entropy, AdamW, one cycle of the learning rate; validation by normalised entropy ends a run that
gets no better, and the best weights are kept.

A peer (`lime_model/peers/`) may stand in for the links; everything else is then the same.

Letters: B windows, S events, T targets, D width, O tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.arrays import Bools, Floats, Ints
from lime_model.config import LabelTraining
from lime_model.errors import TrainingError
from lime_model.measure.metrics import auc, normalised_entropy
from lime_model.model.lime import Features, History, LimeModel
from lime_model.peers.past import Past
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.examples import EventLog, TrainingData
from lime_model.train.loop import Curve, Loop, Row, Validation, one_cycle, take_gradient
from lime_model.train.prefixes import pair_dots, pair_links, read_before
from lime_model.train.windows import Window, WindowBuilder

PHASE = "labels"


class Asked(NamedTuple):
    """Which events of the log `[n]` are targets of training, and of validation: later ones of each user."""

    train: Bools
    valid: Bools


class Predictions(NamedTuple):
    """Of some events: places in the log, labels and logits, each `[m]`."""

    event: Ints
    label: Floats
    logit: Floats


class Answerer(nn.Module):
    """Logits of a window's targets: the dot, and the links or a peer in their place."""

    def __init__(
        self, model: LimeModel, data: TrainingData, dropout: float = 0.0, peer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model, self.peer, self.data, self.dropout = model, peer, data, dropout

    def forward(self, window: Window, stride: int) -> Tensor:
        """`[B, T]`."""
        model = self.model
        rows, place = np.unique(window.item, return_inverse=True)
        vectors = model.embed_items(self.data.catalogue, rows)
        spread = vectors[torch.tensor(place).view(window.item.shape)]  # T of every event [B, S, D]
        events = model.embed_events(spread, torch.tensor(window.action))
        days, keep = torch.tensor(window.days, dtype=events.dtype), torch.tensor(window.keep)
        end, users = torch.tensor(window.end), Features.of(self.data.users, window.users)
        history, items = History(events, days, keep), spread[:, -end.shape[1] :]
        state = read_before(model, history, users, end, stride, links=self.peer is None)
        pools, links = (F.dropout(x, self.dropout, self.training) for x in (state.pools, state.links))
        state = state._replace(pools=pools, links=links)
        pairs = items.flatten(0, 1)
        dots = model.weigh(pair_dots(model, state, pairs), 1).view(end.shape)
        if self.peer is None:
            return dots + model.weigh(pair_links(model, state, pairs), 1).view(end.shape)
        user = state.user.unflatten(0, end.shape)[:, 0]
        past = Past(*history, end, pools.unflatten(0, end.shape), user)
        other: Tensor = self.peer(past, items)
        return dots + other


@dataclass
class LabelTrainer:
    """Owns a model, its data and the random state of one run; deterministic by seed.

    Raises:
        TrainingError: see `WindowBuilder`; or a user's validation lies before the user's training.
    """

    model: LimeModel
    data: TrainingData
    asked: Asked
    config: LabelTraining
    peer: nn.Module | None = None
    checkpoints: Checkpoints | None = None

    def __post_init__(self) -> None:
        config = self.config
        self.windows = WindowBuilder(self.data.log, self.model.config.max_events, config.targets)
        self.starts = self._starts("training", self.asked.train)
        self._starts("validation", self.asked.valid)  # now, not after a validation's worth of steps
        check_order(self.data.log, self.asked)
        self.net = Answerer(self.model, self.data, config.dropout, self.peer)
        self.rng = np.random.default_rng(config.seed)
        self.shuffled: tuple[int, Ints] = (-1, self.starts)  # an epoch, and its order of windows
        self.curve: Curve = []

    def _starts(self, part: str, asked: Bools) -> Ints:
        try:
            return self.windows.starts(asked)
        except TrainingError as error:
            raise TrainingError(f"{part}: {error}; labels.valid_days says where validation begins") from error

    def fit(self) -> Curve:
        """Train, and end with the weights that did best in validation."""
        config, net = self.config, self.net
        torch.manual_seed(config.seed)  # of dropout
        net.train()
        steps = max(1, round(config.epochs * self.steps_per_epoch))
        embeddings, rest = self._parameters()
        rates = [config.embedding_rate, config.learning_rate]
        optimiser = torch.optim.AdamW(
            [{"params": embeddings}, {"params": rest}], weight_decay=config.weight_decay
        )
        schedule = one_cycle(optimiser, rates, steps)
        loop = Loop(
            PHASE, net, net.state_dict, optimiser, schedule, self.rng, self.curve, self.checkpoints,
            Validation(self._measure, config.patience),
        )  # fmt: skip
        loop.run(steps, lambda number: self.step(number, optimiser), -(-steps // config.validations))
        net.eval()
        return self.curve

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every window once."""
        return -(-len(self.starts) // self.config.batch)

    def predict(self, asked: Bools, stride: int) -> Predictions:
        """Of the events asked for that have a label, see `predict`."""
        return predict(self.net, self.windows, asked, self.config.batch, stride)

    def step(self, number: int, optimiser: torch.optim.Optimizer) -> Row:
        """One optimiser step; returns the mean loss in nats.

        Raises:
            LossError: the loss or its gradient is not finite; the weights are those of the step before.
        """
        window = self.windows.build(self._draw(number), self.asked.train)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
            logits = self.net(window, self.config.stride).float()
        counts = torch.tensor(window.counts)
        label = torch.tensor(window.label, dtype=logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits[counts], label[counts])
        optimiser.zero_grad()
        take_gradient(
            loss, self.net, lambda: f"{self.data.name_users(window.users)}; lower labels.learning_rate"
        )
        optimiser.step()
        return {"loss": loss.item()}

    def _draw(self, number: int) -> Ints:
        """Starts of the windows of a step: each epoch has its own order, wherever a run was interrupted."""
        epoch, place = divmod(number - 1, self.steps_per_epoch)
        if self.shuffled[0] != epoch:
            order = np.random.default_rng([self.config.seed, epoch]).permutation(self.starts)
            self.shuffled = epoch, order
        chosen: Ints = self.shuffled[1][place * self.config.batch : (place + 1) * self.config.batch]
        return chosen

    def _measure(self) -> Row:
        """Normalised entropy and AUC of validation."""
        found = self.predict(self.asked.valid, self.config.stride)
        entropy = normalised_entropy(found.label, found.logit)
        return {"valid_ne": entropy, "valid_auc": auc(found.label, found.logit)}

    def _parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Embeddings, and the rest."""
        model = self.model
        parts: list[nn.Module] = [model.items.ids, model.items.features, model.event_type, model.users]
        if model.config.labelled:
            parts.append(model.action_scale)
        tables = {id(weight) for part in parts for weight in part.parameters()}
        both = list(self.net.parameters())
        return [p for p in both if id(p) in tables], [p for p in both if id(p) not in tables]


def predict(net: Answerer, windows: WindowBuilder, asked: Bools, size: int, stride: int) -> Predictions:
    """Logits of the events asked for that have a label, `size` windows at a time.

    LIME-XOR is read every `stride` events.
    """
    training = net.training
    net.eval()
    parts = []
    with torch.inference_mode():
        for window in windows.batches(windows.starts(asked), asked, size):
            logits = net(window, stride).numpy().astype(np.float64)
            parts.append((window.event[window.counts], window.label[window.counts], logits[window.counts]))
    net.train(training)
    return Predictions(*(np.concatenate(side) for side in zip(*parts, strict=True)))


def check_order(log: EventLog, asked: Asked) -> None:
    """Time must not turn.

    Raises:
        TrainingError: a user has an event of validation before one of training.
    """
    last = np.full(len(log.offsets) - 1, -1)
    train, valid = np.flatnonzero(asked.train), np.flatnonzero(asked.valid)
    np.maximum.at(last, log.owner(train), train)
    early = valid[valid <= last[log.owner(valid)]]
    if len(early):
        raise TrainingError(
            f"{len(early)} events of validation lie before their user's last event of training, "
            f"such as event {early[0]} of the log; put the validation window after it"
        )
