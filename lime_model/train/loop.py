"""Steps of one phase of training: progress, curve, early stopping, and checkpoints to go on from."""

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
    """`measure` of examples that no step learns from; of what it returns the first, the lower the better,
    decides which weights are kept, and ends the phase after `patience` rows of the curve without a gain."""

    measure: Callable[[], Row]
    patience: int


def one_cycle(
    optimiser: torch.optim.Optimizer, rates: list[float], steps: int
) -> torch.optim.lr_scheduler.OneCycleLR:
    """Up over a tenth of the steps, then down; `rates` are the highest ones of the parameter groups."""
    # Of ten steps a tenth is one, and torch divides by the steps before it.
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, steps, pct_start=0.1 if steps != 10 else 0.2)


def take_gradient(loss: Tensor, model: nn.Module, of: Callable[[], str]) -> None:
    """Gradients of a loss, clipped to norm 1; `of` names the batch and the remedy.

    Raises:
        LossError: the loss or the gradient is not finite; the weights are untouched.
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
        phase: its name, in the log and of its checkpoint.
        model: what it trains.
        weights: the tensors of the model that the phase saves, and takes up again.
        optimiser, schedule: the schedule steps after every step.
        rng: draws the batches.
        curve: rows of earlier phases; extended.
        checkpoints: a run that was killed goes on where it was saved.
        validation: the phase ends with the weights that did best in it; without one with the last.
        best, values: those weights, and what decided, row by row.
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
        """Run to `steps`, or until validation ends it.

        Args:
            step: one optimiser step, by its number from 1; returns its losses by name.
            every: steps of a row of the curve, which holds the means of the losses and what validation says.
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
                self._say(number, steps, (number - first) / (time.monotonic() - started))
                recent = []
            if self.checkpoints and (self.checkpoints.due(self.phase) or number == steps or stop):
                self._save(self.checkpoints, steps if stop else number, recent)
            if stop:
                break
        self.model.load_state_dict(self.best, strict=False)

    def _validate(self) -> tuple[Row, bool]:
        """Measures for a row of the curve, and whether to stop; keeps the best weights.

        Raises:
            LossError: what decides is not finite; the best weights so far stand in the checkpoint.
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
            log.info("%s: no gain in %d validations, so it ends", self.phase, since)
        return measures, stop

    @property
    def _best_phase(self) -> str:
        return f"best {self.phase}"

    def _say(self, number: int, steps: int, rate: float) -> None:
        values = " ".join(f"{name} {value:.4f}" for name, value in self.curve[-1].items() if name != "step")
        left = (steps - number) / rate
        log.info(
            "%s step %d/%d: %s, %.1f steps/s, %.0f s left", self.phase, number, steps, values, rate, left
        )

    def _save(self, checkpoints: Checkpoints, number: int, recent: list[dict[str, float]]) -> None:
        """All that the next step depends on."""
        moments = pack_optimiser(self.optimiser, self.schedule)
        tensors = {f"model.{k}": v for k, v in self.weights().items()}
        tensors |= {f"optimiser.{k}": v for k, v in moments.tensors.items()}
        state = {
            "step": number, "recent": recent, "curve": self.curve, "optimiser": moments.state,
            "random": self.rng.bit_generator.state, "values": self.values,
        }  # fmt: skip
        checkpoints.save(self.phase, {**tensors, "torch random": torch.get_rng_state()}, state)

    def _resume(self) -> tuple[int, list[dict[str, float]]]:
        """Steps that are done, and the losses since the last row of the curve."""
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
        log.info("%s go on after step %d", self.phase, saved.state["step"])
        return saved.state["step"], saved.state["recent"]
