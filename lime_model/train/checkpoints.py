"""The state of a training run on disk: a run that was killed continues from there, with the same numbers.

A phase of training has one safetensors file: parameters, moments of the optimiser and torch's random state as
tensors, and everything else as JSON in its header. The file is replaced by a rename, so a kill leaves either
the old file or the new one.
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
    """What a file holds: `tensors` by name, and the rest of the `state` as JSON types."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


@dataclass
class Checkpoints:
    """The files of one run.

    Args:
        folder: where the files lie; made when missing.
        source: names everything that the run depends on; files of another source are ignored.
        every_seconds: least time between two saves of a phase before its end.
        stored: called after every save, to copy the folder to where a restarted run looks.
        opened: when the run started, seconds of the monotonic clock.
        last: when each phase was last saved, seconds of the monotonic clock.
    """

    folder: Path
    source: str
    every_seconds: float = 30.0
    stored: Callable[[], None] = lambda: None
    opened: float = field(default_factory=time.monotonic)
    last: dict[str, float] = field(default_factory=dict)

    def due(self, phase: str) -> bool:
        """Whether the phase's last save is older than `every_seconds`."""
        return time.monotonic() - self.last.get(phase, self.opened) >= self.every_seconds

    def save(self, phase: str, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the file of a phase.

        Args:
            phase: name of the phase.
            tensors: tensors by name.
            state: everything else, as JSON types.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{phase}.safetensors"
        header = {"source": self.source, "state": json.dumps(state)}
        save_file({k: v.contiguous() for k, v in tensors.items()}, path.with_suffix(".new"), header)
        os.replace(path.with_suffix(".new"), path)
        self.stored()
        self.last[phase] = time.monotonic()

    def load(self, phase: str) -> Saved | None:
        """Return what was saved for a phase; None when the file is missing, damaged or of another source."""
        path = self.folder / f"{phase}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata()
                if header["source"] != self.source:
                    log.info("%s was saved with other settings, tables or code; training starts anew", path)
                    return None
                return Saved({k: file.get_tensor(k) for k in file.keys()}, json.loads(header["state"]))  # noqa: SIM118
        except SafetensorError as error:
            log.warning("%s can't be read (%s); training starts anew", path, error)
            return None


def pack_optimiser(optimiser: torch.optim.Optimizer, schedule: Schedule) -> Saved:
    """Return moments as tensors, and rates, momenta and the place in the schedule as JSON types."""
    whole = optimiser.state_dict()
    tensors = {f"{i}.{name}": value for i, part in whole["state"].items() for name, value in part.items()}
    return Saved(tensors, {"groups": whole["param_groups"], "schedule": schedule.state_dict()})


def unpack_optimiser(saved: Saved, optimiser: torch.optim.Optimizer, schedule: Schedule) -> None:
    """Restore what `pack_optimiser` returned, in place.

    Args:
        saved: moments, rates and the place in the schedule.
        optimiser: takes moments and rates.
        schedule: takes its place.
    """
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.tensors.items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    groups = [group | {"betas": tuple(group["betas"])} for group in saved.state["groups"]]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    schedule.load_state_dict(saved.state["schedule"])
