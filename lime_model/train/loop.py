"""The steps of one phase of training: progress, curve, early stopping and checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lime_model.errors import LossError
from lime_model.train.checkpoints import Checkpoints, Saved, pack_optimiser, unpack_optimiser

log = logging.getLogger(__name__)

Row = Mapping[str, float]
Curve = list[dict[str, float]]


class Validation(NamedTuple):
    """How a phase is judged on examples that no step learns from.

    The first of the values that `measure` returns decides, and lower is better: the weights with the lowest
    value are kept, and the phase ends after `patience` rows of the curve without a new lowest value.
    """

    measure: Callable[[], Row]
    patience: int


def one_cycle(
    optimiser: torch.optim.Optimizer, rates: list[float], steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return a schedule that raises the rates over a tenth of the steps and then lowers them.

    Args:
        optimiser: its parameter groups.
        rates: highest rate of each group.
        steps: all steps.
    """
    # torch divides by pct_start · steps - 1, which is 0 when a tenth of the steps is one step: ten steps take
    # a fifth instead.
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, steps, pct_start=0.1 if steps != 10 else 0.2)


def take_gradient(loss: Tensor, model: nn.Module, of: Callable[[], str]) -> None:
    """Compute the gradient of a loss and clip it to norm 1.

    Args:
        loss: a scalar.
        model: the parameters whose gradients are clipped together.
        of: names the batch and the remedy, for a message.

    Raises:
        LossError: the loss or the gradient is not finite; the weights are unchanged.
    """
    if not torch.isfinite(loss):
        raise LossError(f"loss is {loss.item()} for {of()}")
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not torch.isfinite(norm):
        raise LossError(f"the gradient's norm is {norm.item()} at loss {loss.item()} for {of()}")


@dataclass
class Loop:
    """One phase of a run.

    Args:
        phase: name of the phase in the log, and of its checkpoint.
        model: the model that it trains.
        weights: returns the tensors of the model that the phase saves and restores.
        optimiser: trains the parameters.
        schedule: sets the rates; it advances after every step.
        rng: draws the batches.
        curve: rows of earlier phases; the phase adds its own.
        checkpoints: where a run that was killed left its state.
        validation: the phase ends with the weights that are best in it; without validation, with the last
            ones.
        best: the best weights so far.
        values: the deciding value of each row of the curve.
    """

    phase: str
    model: nn.Module
    weights: Callable[[], dict[str, Tensor]]
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    rng: np.random.Generator
    curve: Curve
    checkpoints: Checkpoints | None
    validation: Validation | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)

    def run(self, steps: int, step: Callable[[int], Row], every: int) -> None:
        """Run the phase to its last step, or until validation ends it.

        Args:
            steps: number of the last step.
            step: makes the optimiser step of a number, from 1 on, and returns its losses by name.
            every: steps between two rows of the curve; a row holds the mean losses and the values of
                validation.
        """
        before = int(self.curve[-1]["step"]) if self.curve else 0
        done, recent = self._resume()
        first, stop, started = done, False, time.monotonic()
        for number in range(done + 1, steps + 1):
            recent.append(dict(step(number)))
            self.schedule.step()
            if number % every == 0 or number == steps:
                losses = {name: float(np.mean([r[name] for r in recent])) for name in recent[-1]}
                measures, stop = self._validate()
                self.curve.append({"step": before + number, **losses, **measures})
                self._log_progress(number, steps, (number - first) / (time.monotonic() - started))
                recent = []
            if self.checkpoints and (self.checkpoints.due(self.phase) or number == steps or stop):
                self._save(self.checkpoints, steps if stop else number, recent)
            if stop:
                break
        self.model.load_state_dict(self.best, strict=False)

    def _validate(self) -> tuple[Row, bool]:
        """Return the values for a row of the curve, and whether to stop; keep the best weights.

        Raises:
            LossError: the deciding value is not finite; the best weights so far are in the checkpoint.
        """
        if self.validation is None:
            return {}, False
        measures = self.validation.measure()
        name = next(iter(measures))
        if not np.isfinite(measures[name]):
            raise LossError(
                f"{self.phase}: {name} is {measures[name]} in validation; lower the learning rate"
            )
        self.values.append(measures[name])
        since = len(self.values) - 1 - int(np.argmin(self.values))
        if since == 0:
            self.best = {name: value.detach().clone() for name, value in self.weights().items()}
            if self.checkpoints:
                self.checkpoints.save(self._best_phase, self.best, {})
        if stop := since >= self.validation.patience:
            log.info("%s: no gain in %d validations, so the phase ends", self.phase, since)
        return measures, stop

    @property
    def _best_phase(self) -> str:
        return f"best {self.phase}"

    def _log_progress(self, number: int, steps: int, rate: float) -> None:
        values = " ".join(f"{name} {value:.4f}" for name, value in self.curve[-1].items() if name != "step")
        left = (steps - number) / rate
        log.info(
            "%s step %d/%d: %s, %.1f steps/s, %.0f s left", self.phase, number, steps, values, rate, left
        )

    def _save(self, checkpoints: Checkpoints, number: int, recent: list[dict[str, float]]) -> None:
        """Save everything that the next step depends on."""
        moments = pack_optimiser(self.optimiser, self.schedule)
        tensors = {f"model.{k}": v for k, v in self.weights().items()}
        tensors |= {f"optimiser.{k}": v for k, v in moments.tensors.items()}
        state = {
            "step": number, "recent": recent, "curve": self.curve, "optimiser": moments.state,
            "random": self.rng.bit_generator.state, "values": self.values,
        }  # fmt: skip
        checkpoints.save(self.phase, {**tensors, "torch random": torch.get_rng_state()}, state)

    def _resume(self) -> tuple[int, list[dict[str, float]]]:
        """Restore the saved state; return the steps done, and the losses since the last row of the curve."""
        saved = self.checkpoints.load(self.phase) if self.checkpoints else None
        if self.checkpoints is None or saved is None:
            return 0, []
        if saved.state["values"]:
            best = self.checkpoints.load(self._best_phase)
            if best is None:
                return 0, []
            self.best, self.values = best.tensors, saved.state["values"]
        sides: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}}
        for name, value in saved.tensors.items():
            side, _, key = name.partition(".")
            sides.setdefault(side, {})[key] = value
        self.model.load_state_dict(sides["model"], strict=False)  # a phase may save a part of the model
        unpack_optimiser(Saved(sides["optimiser"], saved.state["optimiser"]), self.optimiser, self.schedule)
        torch.set_rng_state(saved.tensors["torch random"])
        self.rng.bit_generator.state = saved.state["random"]
        self.curve[:] = saved.state["curve"]
        log.info("%s: training continues after step %d", self.phase, saved.state["step"])
        return saved.state["step"], saved.state["recent"]
