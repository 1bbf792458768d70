"""A training run as a process, for tests to kill: `python -m tests.lime_model.train.train_toy FOLDER STEPS`.

It saves after every step and prints the curve as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from lime_model.train.checkpoints import Checkpoints
from tests.lime_model.toys import JUDGED, toy_trainer


def main() -> None:
    """Train from the start or from the last checkpoint."""
    config = dataclasses.replace(JUDGED, steps=int(sys.argv[2]), link_steps=20)
    checkpoints = Checkpoints(Path(sys.argv[1]), "toy", every_seconds=0.0)
    print(json.dumps(toy_trainer(config, checkpoints).fit()))


if __name__ == "__main__":
    main()
