"""The answers benchmark on a log of its own: splits by position, first attempts, trials that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import answers
from benchmarks.answers import Answers, Trial, load, run

LEARNERS, ANSWERS, PROBLEMS = 12, 40, 200


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Every learner answers 40 times at 200 problems of 2 skills."""
    rng, size = np.random.default_rng(0), LEARNERS * ANSWERS
    item = rng.integers(0, PROBLEMS, size)
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(LEARNERS), ANSWERS),
            "pos": np.tile(np.arange(ANSWERS), LEARNERS),
            "item_id": item,
            "skill_id": item % 2,
            "label": rng.integers(0, 2, size),
        }
    )
    path = tmp_path_factory.mktemp("answers") / "log.parquet"
    frame.sample(frac=1.0, random_state=1).to_parquet(path)
    return load(path)


def test_first_attempts_are_asked_for_once_and_in_order_of_time(log: Answers) -> None:
    place = np.arange(LEARNERS * ANSWERS) % ANSWERS
    assert place[log.train].max() < 0.7 * ANSWERS <= place[log.valid].min()
    assert place[log.valid].max() < 0.8 * ANSWERS <= place[log.test].min()
    asked = np.flatnonzero(log.train | log.valid | log.test)
    pairs = list(zip(log.data.log.owner(asked).tolist(), log.data.log.item[asked].tolist(), strict=True))
    assert len(pairs) == len(set(pairs))


def test_a_finished_trial_is_not_trained_again(
    log: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "DONE", tmp_path)
    trial = Trial("lime-mha", 1, 1e-3, 0.5, LEARNERS)
    first = run(log, trial)
    monkeypatch.delattr(answers, "train")
    again = run(log, trial)
    assert again.found.logit.tolist() == first.found.logit.tolist()
    assert (again.valid, again.seconds) == (first.valid, first.seconds)
    with pytest.raises(NameError):
        run(log, trial._replace(seed=2))
