"""Training in two phases: next purchases from histories, by softmax.

Cuts are weekly, and recent ones are drawn more often; the targets are the items of the following weeks. There
are two losses, each a mean over examples: one over all items with the repeat memory, and one over items new
to the history, for which a random share of the history is hidden and becomes targets.

1. Towers: dot, bias and memory, with the softmax over all items with an id embedding. The links are off, so a
   step is a matrix product and batches are large.
2. Links: the whole model, over every positive of the batch and a uniform sample of the other items. The
   exp(score) of a sampled item also counts for items that were not drawn, so that the softmax denominator is
   unbiased. The links start with no effect (see `LimeModel`).

A phase is judged by both losses of users whom no step learns from (`valid_share`; the SVD that embeddings
start from has seen them). It ends when they stop falling, with the best weights. Users are held out and not
late weeks: the latest weeks are the most useful to learn from, and overtraining shows as memorised users.

The losses are in `lime_model/train/losses.py`.

Letters: n examples.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lime_model.arrays import Floats, Ints
from lime_model.errors import TrainingError
from lime_model.model.lime import LimeModel
from lime_model.recipe import TrainConfig
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.event_log import TrainingData, item_counts, item_fame
from lime_model.train.examples import ExampleBuilder
from lime_model.train.loop import Curve, Loop, Row, Validation, one_cycle, take_gradient
from lime_model.train.losses import Objective
from lime_model.train.svd_start import set_start

log = logging.getLogger(__name__)

LINK_PARTS = ("links.", "reader.", "head.", "head_out.")
TOWERS = "towers"  # name of the first phase
LEAST_JUDGES = 20  # users held out at least: fewer say little about the run
JUDGED = 512  # examples of held-out users at most: more take time and say little more
ROWS, LONGEST_ROW = 6, 50  # rows of the curve at least, and steps of a row at most


def start_from_svd(model: LimeModel, data: TrainingData, seed: int) -> None:
    """Start item embeddings and dot from the log; see `lime_model/train/svd_start.py`.

    Args:
        model: the model to set.
        data: log and catalogue.
        seed: seed of the SVD.
    """
    counts = item_counts(data.log, 0.0, model.config.bias_days, len(data.catalogue.id_rows))
    set_start(model, data.log, data.catalogue, counts[:, 0].astype(np.float64), seed)


class Trainer:
    """Trains one model; a run is deterministic by its seed.

    Args:
        model: the model, trained in place.
        data: log, catalogue and users.
        config: how to learn.
        checkpoints: where a run that was killed left its state; the run continues from there.

    Raises:
        TrainingError: no user has enough events.
    """

    def __init__(
        self,
        model: LimeModel,
        data: TrainingData,
        config: TrainConfig,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.model, self.data, self.config, self.checkpoints = model, data, config, checkpoints
        self.rng = np.random.default_rng(config.seed)
        span = np.arange(-config.horizon_days, -config.first_cut_days - 1, -config.cut_every_days)
        cuts, rows = np.ascontiguousarray(span[::-1]), len(data.catalogue.id_rows)
        counts = np.stack([item_counts(data.log, cut, model.config.bias_days, rows) for cut in cuts])
        self.builder = ExampleBuilder(
            log=data.log,
            cuts=cuts,
            horizon_days=config.horizon_days,
            max_events=config.max_events,
            hide_share=config.hide_share,
            decay_days=model.config.memory_days,
            pool_days=model.config.pool_days,
            fame=item_fame(counts),
            event_types=model.event_type.num_embeddings,
            tasks=tuple(model.config.event_types.index(name) + 1 for name in model.config.tasks),
        )
        self.users, self.cuts = self.builder.valid(config.min_events)
        if len(self.users) == 0:
            raise TrainingError(
                f"no user has {config.min_events} events before a cut and one in the {config.horizon_days:g} "
                "days after it; give more history"
                + (", or lower train.min_events" if config.min_events > 2 else "")
            )
        self.judged = self._hold_out()
        self.probability = self._recent_first(self.cuts)
        self.objective = Objective(model, data, config, recent=counts[:, :, 0].astype(np.float64))
        self.start = model.items.ids.weight.detach().clone()
        self.curve: Curve = []

    def _recent_first(self, cuts: Ints) -> Floats:
        """Return the probabilities `[n]` with which examples at these cuts are drawn."""
        weight = 0.5 ** (-self.builder.cuts[cuts] / self.config.cut_half_life_days)
        return weight / weight.sum()

    def _hold_out(self) -> tuple[Ints, Ints]:
        """Take `valid_share` of the users out of training; return users and cuts that judge it, if any."""
        rng, users = np.random.default_rng([self.config.seed, 1]), np.unique(self.users)
        size = int(self.config.valid_share * len(users))
        if size < LEAST_JUDGES:
            log.info(
                "%d of %d users could be held out and %d are needed: the run has no validation",
                size, len(users), LEAST_JUDGES,
            )  # fmt: skip
            return self.users[:0], self.cuts[:0]
        held = np.isin(self.users, rng.choice(users, size, replace=False))
        theirs = self.users[held], self.cuts[held]
        self.users, self.cuts = self.users[~held], self.cuts[~held]
        wanted = min(JUDGED, len(theirs[0]))
        chosen = rng.choice(len(theirs[0]), wanted, replace=False, p=self._recent_first(theirs[1]))
        return theirs[0][chosen], theirs[1][chosen]

    def fit(self) -> Curve:
        """Run both phases and return the curve."""
        self.fit_towers()
        return self.fit_links()

    def fit_towers(self) -> None:
        """Run the first phase, which trains everything but the links."""
        torch.manual_seed(self.config.seed)  # seeds dropout
        parts = self._parts()
        rates = [(parts["towers"], self.config.learning_rate), (parts["memory"], self.config.memory_rate)]
        self._phase(rates, self.config.steps, links=False)

    def adopt(self, model: LimeModel) -> Trainer:
        """Return a trainer of another variant that starts its links from this trainer's towers.

        The first phase does not read the links, so every variant would get the same towers from it.
        """
        model.load_state_dict(self._towers(), strict=False)
        other = copy.copy(self)
        other.model, other.rng, other.curve = model, copy.deepcopy(self.rng), list(self.curve)
        other.objective = replace(self.objective, model=model)
        return other

    def fit_links(self) -> Curve:
        """Run the second phase, which trains the links, and the rest at lower rates; return the curve."""
        torch.manual_seed(self.config.seed)
        parts, config, share = self._parts(), self.config, self.config.tower_share
        late = [(parts["towers"], config.link_rate * share), (parts["memory"], config.memory_rate * share)]
        self._phase([*late, (parts["links"], config.link_rate)], config.link_steps, links=True)
        self.model.eval()
        return self.curve

    def _towers(self) -> dict[str, Tensor]:
        """Return the tensors that the first phase trains."""
        return {k: v for k, v in self.model.state_dict().items() if not k.startswith(LINK_PARTS)}

    def _parts(self) -> dict[str, list[nn.Parameter]]:
        """Group the parameters by the rate at which they are trained."""
        parts: dict[str, list[nn.Parameter]] = {"links": [], "memory": [], "towers": []}
        for name, parameter in self.model.named_parameters():
            kind = "links" if name.startswith(LINK_PARTS) else name.split(".")[0]
            parts[kind if kind in parts else "towers"].append(parameter)
        return parts

    def _phase(self, rates: list[tuple[list[nn.Parameter], float]], steps: int, *, links: bool) -> None:
        """Make some steps over pairs of parameters and their highest learning rate; extend the curve."""
        if steps < 1:
            return
        self.model.train()
        groups = [{"params": parameters} for parameters, _ in rates]
        optimiser = torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
        schedule = one_cycle(optimiser, [rate for _, rate in rates], steps)
        judges = Validation(lambda: self.judge(links=links), self.config.patience)
        loop = Loop(
            phase=f"links of {self.model.config.variant}" if links else TOWERS,
            model=self.model,
            weights=self.model.state_dict if links else self._towers,  # towers are shared by the variants
            optimiser=optimiser, schedule=schedule, rng=self.rng, curve=self.curve,
            checkpoints=self.checkpoints,
            validation=judges if len(self.judged[0]) else None,
        )  # fmt: skip
        every = min(LONGEST_ROW, max(1, steps // ROWS))
        loop.run(steps, lambda _: self.step(optimiser, links=links), every)

    def judge(self, *, links: bool) -> Row:
        """Return the losses of held-out users: the sum of both, which decides, and that of new items.

        Examples, hidden items and candidates are the same in every call.
        """
        size = self.config.link_batch if links else self.config.batch
        rng, sums = np.random.default_rng(self.config.seed), np.zeros(2)
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(self.judged[0]), size):
                users, cuts = (side[start : start + size] for side in self.judged)
                both = self.objective.losses(self.builder.build(users, cuts, rng), rng, links=links)
                sums += len(users) * np.array([loss.item() for loss in both])
        self.model.train()
        every, new = (sums / len(self.judged[0])).tolist()
        return {"valid_loss": every + new, "valid_loss_new": new}

    def step(self, optimiser: torch.optim.Optimizer, *, links: bool) -> Row:
        """Make one optimiser step and return the two losses in nats per positive, averaged over examples.

        Raises:
            LossError: the loss or its gradient is not finite; the weights are those of the step before.
        """
        size = self.config.link_batch if links else self.config.batch
        chosen = self.rng.choice(len(self.users), size, p=self.probability)
        batch = self.builder.build(self.users[chosen], self.cuts[chosen], self.rng)
        loss_all, loss_new = self.objective.losses(batch, self.rng, links=links)
        loss = loss_all + loss_new
        optimiser.zero_grad()
        take_gradient(
            loss, self.model, lambda: f"{self.data.name_users(batch.users)}; lower train.learning_rate"
        )
        optimiser.step()
        with torch.no_grad():
            self.model.items.ids.weight.lerp_(self.start, self.config.id_decay)
        return {"loss": loss_all.item(), "loss_new": loss_new.item()}
