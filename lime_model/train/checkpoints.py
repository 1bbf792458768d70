"""The state of a training run on disk: a run that was killed goes on where it was, with the same numbers.

A phase of training has one file of safetensors: parameters, moments of the optimiser and torch's
random state as tensors, everything else as JSON in its header. It is replaced by a rename, so a kill
leaves the old one or the new one.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

log = logging.getLogger(__name__)

Schedule = torch.optim.lr_scheduler.LRScheduler


class Saved(NamedTuple):
    """`tensors` by name, and what is no tensor."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


@dataclass
class Checkpoints:
    """The files of one run.

    Args:
        folder: where they are; made when missing.
        source: names what the run depends on; files of another are not taken up.
        every_seconds: at most so often a phase is saved before its end.
        opened, last: seconds of the monotonic clock, `last` of each phase's newest save.
        stored: called after every save, to carry the folder where a restarted run looks.
    """

    folder: Path
    source: str
    every_seconds: float = 30.0
    stored: Callable[[], None] = lambda: None
    opened: float = field(default_factory=time.monotonic)
    last: dict[str, float] = field(default_factory=dict)

    def due(self, phase: str) -> bool:
        """Whether the phase's last save is long ago."""
        return time.monotonic() - self.last.get(phase, self.opened) >= self.every_seconds

    def save(self, phase: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the file of `phase`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{phase}.safetensors"
        header = {"source": self.source, "state": json.dumps(state)}
        save_file({k: v.contiguous() for k, v in tensors.items()}, path.with_suffix(".new"), header)
        os.replace(path.with_suffix(".new"), path)
        self.stored()
        self.last[phase] = time.monotonic()

    def load(self, phase: str) -> Saved | None:
        """What was saved of `phase`; None when nothing was, or it is of another run or damaged."""
        path = self.folder / f"{phase}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata()
                if header["source"] != self.source:
                    log.info("%s is of other settings, tables or code; training starts anew", path)
                    return None
                return Saved({k: file.get_tensor(k) for k in file.keys()}, json.loads(header["state"]))  # noqa: SIM118
        except SafetensorError as error:
            log.warning("%s can't be read (%s); training starts anew", path, error)
            return None


def pack_optimiser(optimiser: torch.optim.Optimizer, schedule: Schedule) -> Saved:
    """Moments as tensors; rates, momenta and the place in the schedule as JSON."""
    whole = optimiser.state_dict()
    tensors = {f"{i}.{name}": value for i, part in whole["state"].items() for name, value in part.items()}
    return Saved(tensors, {"groups": whole["param_groups"], "schedule": schedule.state_dict()})


def unpack_optimiser(saved: Saved, optimiser: torch.optim.Optimizer, schedule: Schedule) -> None:
    """The inverse of `pack_optimiser`, in place."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.tensors.items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    groups = [group | {"betas": tuple(group["betas"])} for group in saved.state["groups"]]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    schedule.load_state_dict(saved.state["schedule"])
