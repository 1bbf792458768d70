"""The answers benchmark on a small log: the splits by position, first attempts and kept trials."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import answer_trials
from benchmarks.answer_trials import Answers, Trial, load, run

LEARNERS, ANSWERS, PROBLEMS = 12, 40, 200


def answered() -> pd.DataFrame:
    """Return a log in which every learner answers 40 times, on 200 problems of 2 skills."""
    rng, size = np.random.default_rng(0), LEARNERS * ANSWERS
    item = rng.integers(0, PROBLEMS, size)
    return pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(LEARNERS), ANSWERS),
            "pos": np.tile(np.arange(ANSWERS), LEARNERS),
            "item_id": item,
            "skill_id": item % 2,
            "label": rng.integers(0, 2, size),
        }
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    path = tmp_path_factory.mktemp("answers") / "log.parquet"
    answered().sample(frac=1.0, random_state=1).to_parquet(path)
    return load(path)


def test_each_first_attempt_is_asked_for_once_and_in_order_of_time(log: Answers) -> None:
    first = answered().drop_duplicates(["user_id", "item_id"])
    assert len(first) == len(log.data.log.item) < LEARNERS * ANSWERS
    bounds = (0, 0.7 * ANSWERS, 0.8 * ANSWERS, ANSWERS)
    parts = [first["pos"].between(low, high, inclusive="left") for low, high in pairwise(bounds)]
    for asked, expected in zip(log[2:], parts, strict=True):
        assert asked.tolist() == expected.tolist()
    asked = np.flatnonzero(log.train | log.valid | log.test)
    pairs = list(zip(log.data.log.owner(asked).tolist(), log.data.log.item[asked].tolist(), strict=True))
    assert len(pairs) == len(set(pairs))


def test_a_finished_trial_is_not_trained_again(
    log: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_trials, "DONE", tmp_path)
    trial = Trial("lime-mha", 1, 1e-3, 0.5, LEARNERS)
    first = run(log, trial)
    monkeypatch.delattr(answer_trials, "trainer_of")
    again = run(log, trial)
    assert again.found.logit.tolist() == first.found.logit.tolist()
    assert (again.valid, again.seconds) == (first.valid, first.seconds)
    with pytest.raises(NameError):
        run(log, trial._replace(seed=2))
