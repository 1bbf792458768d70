"""Training on labels: the probability that an event's label is 1, from the history before its session.

Every labelled event of a log is a target. Windows of consecutive events share a history (windows.py), whose
actions show the labels that were given (`ModelConfig.labelled`). The loss is binary cross-entropy, the
optimiser AdamW with one cycle of the learning rate. Validation by normalised entropy ends a run that stops
improving, and the best weights are kept.

A peer (`lime_model/peers/`) can take the place of the links; everything else is then the same.

Letters: n events of the log, B windows, S events of a window, T targets, D width, m predicted events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lime_model.arrays import Bools, Floats, Ints
from lime_model.errors import TrainingError
from lime_model.measure.metrics import auc, normalised_entropy
from lime_model.model.lime import Features, History, LimeModel
from lime_model.peers.past import Past
from lime_model.recipe import LabelTraining
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.event_log import EventLog, TrainingData
from lime_model.train.loop import Curve, Loop, Row, Validation, one_cycle, take_gradient
from lime_model.train.prefixes import pair_dots, pair_links, read_before
from lime_model.train.windows import Window, WindowBuilder

PHASE = "labels"


class Asked(NamedTuple):
    """Which events of the log `[n]` are targets of training, and which later ones are of validation."""

    train: Bools
    valid: Bools


class Predictions(NamedTuple):
    """Predicted events: their places in the log, labels and logits, each `[m]`."""

    event: Ints
    label: Floats
    logit: Floats


class Answerer(nn.Module):
    """Computes the logits of a window's targets: the dot, and the links or a peer in their place.

    Args:
        model: the model.
        data: catalogue and users.
        dropout: of link state and pools in training.
        peer: takes the place of the links.
    """

    def __init__(
        self, model: LimeModel, data: TrainingData, dropout: float = 0.0, peer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model, self.peer, self.data, self.dropout = model, peer, data, dropout

    def forward(self, window: Window, stride: int) -> Tensor:
        """Compute logits `[B, T]`; LIME-XOR is read every `stride` events."""
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
    """Trains one model on labels; a run is deterministic by its seed.

    Args:
        model: the model, trained in place.
        data: log, catalogue and users.
        asked: targets of training and of validation.
        config: how to learn.
        peer: takes the place of the links.
        checkpoints: where a run that was killed left its state.

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
        self._starts("validation", self.asked.valid)  # fails here and not at the first validation
        check_order(self.data.log, self.asked)
        self.net = Answerer(self.model, self.data, config.dropout, self.peer)
        self.rng = np.random.default_rng(config.seed)
        self.shuffled: tuple[int, Ints] = (-1, self.starts)  # an epoch, and the order of its windows
        self.curve: Curve = []

    def _starts(self, part: str, asked: Bools) -> Ints:
        try:
            return self.windows.starts(asked)
        except TrainingError as error:
            raise TrainingError(f"{part}: {error}; labels.valid_days says where validation begins") from error

    def fit(self) -> Curve:
        """Train, end with the weights that were best in validation, and return the curve."""
        config, net = self.config, self.net
        torch.manual_seed(config.seed)  # seeds dropout
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
        """The batches that together hold every window once."""
        return -(-len(self.starts) // self.config.batch)

    def predict(self, asked: Bools, stride: int) -> Predictions:
        """Predict the events of `asked [n]` that have a label; LIME-XOR is read every `stride` events."""
        return predict(self.net, self.windows, asked, self.config.batch, stride)

    def step(self, number: int, optimiser: torch.optim.Optimizer) -> Row:
        """Make one optimiser step and return the mean loss in nats.

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
        """Return where the windows of a step start.

        The order depends on the seed and the epoch alone, so an interrupted run continues with the same
        windows.
        """
        epoch, place = divmod(number - 1, self.steps_per_epoch)
        if self.shuffled[0] != epoch:
            order = np.random.default_rng([self.config.seed, epoch]).permutation(self.starts)
            self.shuffled = epoch, order
        chosen: Ints = self.shuffled[1][place * self.config.batch : (place + 1) * self.config.batch]
        return chosen

    def _measure(self) -> Row:
        """Return normalised entropy and AUC of validation."""
        found = self.predict(self.asked.valid, self.config.stride)
        entropy = normalised_entropy(found.label, found.logit)
        return {"valid_ne": entropy, "valid_auc": auc(found.label, found.logit)}

    def _parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the embeddings, and the other parameters."""
        model = self.model
        parts: list[nn.Module] = [model.items.ids, model.items.features, model.event_type, model.users]
        if model.config.labelled:
            parts.append(model.action_scale)
        tables = {id(weight) for part in parts for weight in part.parameters()}
        both = list(self.net.parameters())
        return [p for p in both if id(p) in tables], [p for p in both if id(p) not in tables]


def predict(net: Answerer, windows: WindowBuilder, asked: Bools, size: int, stride: int) -> Predictions:
    """Predict the events of `asked` that have a label.

    Args:
        net: computes the logits.
        windows: cuts the log.
        asked: which events to predict `[n]`.
        size: windows of a batch.
        stride: events between two readings of LIME-XOR.
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
    """Check that the validation of every user comes after the user's training.

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
