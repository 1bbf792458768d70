"""Training is deterministic by seed, finds the pattern in the log, and never reads past its cut."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lime_model.config import ModelConfig
from lime_model.model.lime import LimeModel
from lime_model.recipe import TrainConfig
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.event_log import EventLog, item_counts, item_fame
from lime_model.train.examples import ExampleBuilder
from lime_model.train.losses import cross_entropy
from lime_model.train.two_phase import Trainer, start_from_svd
from tests.lime_model.toys import JUDGED, SHORT, TRIBE_ITEMS, TRIBE_USERS, toy_trainer, two_tribes

UNKNOWN = np.zeros((1, 10, 3), np.float32)  # fame of every item at the only cut


def fresh(variant: str, seed: int) -> LimeModel:
    config = ModelConfig(
        variant=variant, links=3, width=8, hidden=4, dot=8, heads=2, user_width=2, xor_blocks=1
    )  # type: ignore[arg-type]
    torch.manual_seed(seed)
    return LimeModel(config, item_rows=TRIBE_ITEMS + 1, item_feature_rows=0, user_feature_rows=0)


def train(variant: str, seed: int = 1, **changes: object) -> tuple[LimeModel, list[dict[str, float]]]:
    data, model = two_tribes(), fresh(variant, seed)
    start_from_svd(model, data, seed)
    curve = Trainer(model, data, dataclasses.replace(SHORT, seed=seed, **changes)).fit()  # type: ignore[arg-type]
    return model, curve


def test_a_variant_that_adopts_towers_is_the_one_trained_alone() -> None:
    data, mha = two_tribes(), fresh("lime-mha", 1)
    start_from_svd(mha, data, 1)
    trainer = Trainer(mha, data, dataclasses.replace(SHORT, seed=1))
    trainer.fit_towers()
    xor = trainer.adopt(fresh("lime-xor", 1))
    trainer.fit_links()  # before the other trainer, so that shared state would show
    curve = xor.fit_links()
    alone, expected = train("lime-xor")
    assert curve == expected
    for name, value in alone.state_dict().items():
        assert torch.equal(value, xor.model.state_dict()[name]), name


@pytest.mark.parametrize("variant", ["lime-mha", "lime-xor"])
def test_the_same_seed_gives_the_same_model(variant: str) -> None:
    (first, curve), (second, again) = train(variant), train(variant)
    assert curve == again
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert train(variant, seed=2)[1] != curve


def test_the_loss_falls_below_guessing_over_all_items() -> None:
    _, curve = train("lime-mha")
    assert (
        curve[-1]["loss"] < np.log(TRIBE_ITEMS / 2) + 0.1 < np.log(TRIBE_ITEMS)
    )  # the model knows the tribe


def test_a_killed_run_goes_on_with_the_same_curve(tmp_path: Path) -> None:
    """The first process gets SIGKILL at half of 60 steps, and the second makes the remaining ones."""
    steps = 60
    command = [sys.executable, "-m", "tests.lime_model.train.train_toy", str(tmp_path), str(steps)]
    killed = subprocess.Popen(command)
    look = tmp_path / "look"  # a copy, as safetensors opens a file twice and it may be replaced in between
    look.mkdir()
    done = 0
    while done < steps // 2:
        assert killed.poll() is None, "the run ended before it was killed"
        if (tmp_path / "towers.safetensors").exists():
            shutil.copyfile(tmp_path / "towers.safetensors", look / "towers.safetensors")
        saved = Checkpoints(look, "toy").load("towers")
        done = saved.state["step"] if saved else 0
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert done < steps
    assert Checkpoints(tmp_path, "toy").load("links of lime-mha") is None
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    curve = toy_trainer(dataclasses.replace(JUDGED, steps=steps, link_steps=20)).fit()
    assert all("valid_loss" in row for row in curve)
    for mine, whole in zip(json.loads(again.stdout), curve, strict=True):
        assert mine == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("config", [SHORT, dataclasses.replace(JUDGED, steps=1000)])
def test_towers_saved_under_one_variant_serve_another(config: TrainConfig, tmp_path: Path) -> None:
    """This also holds for towers whose training ended before their last step."""
    toy_trainer(config, Checkpoints(tmp_path, "one")).fit_towers()
    other = toy_trainer(config, Checkpoints(tmp_path, "one"), "lime-xor")
    alone = toy_trainer(config, variant="lime-xor")
    assert other.fit() == alone.fit()
    for name, value in other.model.state_dict().items():
        torch.testing.assert_close(value, alone.model.state_dict()[name], msg=name)


def test_a_phase_ends_when_users_it_never_learns_from_gain_nothing() -> None:
    """Four users are memorised; twenty others decide when to stop, and which weights were best."""
    config = dataclasses.replace(JUDGED, steps=1000, learning_rate=0.05, link_steps=1000, link_rate=0.05)
    trainer = toy_trainer(config)
    judges, learners = set(trainer.judged[0].tolist()), set(trainer.users.tolist())
    assert len(judges) == 20
    assert learners == set(range(TRIBE_USERS)) - judges
    trainer.fit_towers()
    values = [row["valid_loss"] for row in trainer.curve]
    assert trainer.curve[-1]["step"] < 1000
    assert np.argmin(values) == len(values) - 1 - JUDGED.patience
    assert trainer.judge(links=False)["valid_loss"] == pytest.approx(min(values), rel=1e-6)
    towers = trainer.curve[-1]["step"]
    trainer.fit_links()
    links = [row["valid_loss"] for row in trainer.curve if row["step"] > towers]
    assert min(links) < links[-1]  # it went on until patience ended
    assert trainer.judge(links=True)["valid_loss"] == pytest.approx(min(links), rel=1e-6)


def test_best_weights_that_were_lost_are_found_again(tmp_path: Path) -> None:
    config = dataclasses.replace(JUDGED, steps=1000)
    curve = toy_trainer(config, Checkpoints(tmp_path, "one")).fit()
    (tmp_path / "best towers.safetensors").unlink()
    (tmp_path / "links of lime-mha.safetensors").unlink()
    assert toy_trainer(config, Checkpoints(tmp_path, "one")).fit() == curve


def test_a_checkpoint_of_another_run_or_a_torn_one_is_not_taken_up(tmp_path: Path) -> None:
    curve = toy_trainer(SHORT, Checkpoints(tmp_path, "one")).fit()
    assert Checkpoints(tmp_path, "other").load("towers") is None
    file = tmp_path / "towers.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert Checkpoints(tmp_path, "one").load("towers") is None
    (tmp_path / "links of lime-mha.safetensors").unlink()
    assert toy_trainer(SHORT, Checkpoints(tmp_path, "one")).fit() == curve


def test_fame_counts_what_came_before_the_cut() -> None:
    """Two users; the cut at -4 hides a take of item 2, and the window of 3 days an early one of item 1."""
    item, days = np.array([1, 1, 2, 1, 0]), np.array([-9.0, -5.0, -3.0, -6.0, -5.0])
    log = EventLog.of(np.array([0, 3, 5]), item, np.ones(5, np.int64), days)
    recent, all_time, users = item_counts(log, -4.0, 3.0, 3).T.tolist()
    assert (recent, all_time, users) == ([0, 2, 0], [0, 3, 0], [0, 2, 0])
    assert item_counts(log, 0.0, 3.0, 3)[2].tolist() == [1, 1, 1]


def test_a_session_that_began_before_the_cut_is_no_target() -> None:
    """Five events at days -9 to -5, and a session over the cut at -4: its later half is no target."""
    days = np.array([-9.0, -8.0, -7.0, -6.0, -5.0, -4.5, -3.5, -3.0])
    session = days.copy()
    session[6] = -4.5  # belongs to the session of the event before
    log = EventLog.of(
        np.array([0, 8]),
        np.array([1, 2, 1, 3, 1, 4, 5, 6]),
        np.ones(8, np.int64),
        days,
        session_start=session,
    )
    builder = ExampleBuilder(log, np.array([-4.0]), 10.0, 32, 0.0, (90.0, 21.0), (90.0,), UNKNOWN, 2)
    batch = builder.build(np.array([0]), np.array([0]), np.random.default_rng(0))
    assert batch.target_item.tolist() == [6]
    assert set(batch.memory_item.tolist()) == {1, 2, 3, 4}
    assert batch.days.max() == 0.0  # nothing after the cut is in the history


def test_a_task_has_the_targets_of_its_event_type() -> None:
    """A history of a view of 1, purchases of 1 and 2; then a view of 3 and 2, a purchase of 3."""
    days = np.array([-9.0, -8.0, -7.0, -3.0, -2.5, -2.0])
    item, kinds = np.array([1, 1, 2, 3, 2, 3]), np.array([2, 1, 1, 2, 2, 1])
    log = EventLog.of(np.array([0, 6]), item, kinds, days)
    pairs = []
    for hide_share in (0.0, 1.0):
        builder = ExampleBuilder(
            log, np.array([-4.0]), 10.0, 32, hide_share, (90.0, 21.0), (90.0,), UNKNOWN, 3, (2, 1)
        )
        batch = builder.build(np.array([0]), np.array([0]), np.random.default_rng(0))
        assert list(zip(batch.target_task, batch.target_item, strict=True)) == [(0, 2), (0, 3), (1, 3)]
        pairs.append(list(zip(batch.fresh_task.tolist(), batch.fresh_item.tolist(), strict=True)))
    assert pairs == [[(0, 3), (1, 3)], [(0, 3), (0, 1), (1, 3), (1, 1), (1, 2)]]


def test_tasks_learn_their_own_items_and_weights_choose_between_them() -> None:
    """Every user views items 1 to 6 and takes 7 to 12: each task ranks its own first."""
    data = two_tribes()
    item = np.where(np.arange(len(data.log.item)) % 2, 1 + data.log.item % 6, 7 + data.log.item % 6)
    data = dataclasses.replace(data, log=data.log._replace(item=item, event_type=1 + (item > 6)))
    config = ModelConfig(
        links=3, width=8, hidden=4, dot=8, user_width=2,
        event_types=("view", "purchase"), tasks=("view", "purchase"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = LimeModel(config, item_rows=TRIBE_ITEMS + 1, item_feature_rows=0, user_feature_rows=0)
    start_from_svd(model, data, 0)
    trainer = Trainer(model, data, dataclasses.replace(SHORT, steps=150))
    trainer.fit()
    batch = trainer.builder.build(trainer.users[:8], trainer.cuts[:8], np.random.default_rng(0))
    with torch.inference_mode():
        z = trainer.objective.base(batch, trainer.objective.trainable, links=True).mean(0)  # [T, S]
    viewed = torch.tensor(data.catalogue.id_rows[trainer.objective.trainable] <= 6)
    assert z[0][viewed].min() > z[0][~viewed].max()
    assert z[1][~viewed].min() > z[1][viewed].max()


@pytest.mark.parametrize(
    ("tasks", "weights", "message"),
    [
        (("share",), (), "names 'share'"),
        (("view", "view"), (), "at most once"),
        (("view",), (1.0, 2.0), "2 weights for 1 tasks"),
        (("view",), (0.0,), "one is not 0"),
        (("view",), (np.nan,), "weights are finite"),
    ],
)
def test_tasks_that_cannot_be_are_refused(
    tasks: tuple[str, ...], weights: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(event_types=("view", "purchase"), tasks=tasks, task_weights=weights)


def test_what_follows_the_cut_does_not_reach_the_history() -> None:
    data = two_tribes()
    later = data.log.days >= -30
    changed = data.log._replace(item=np.where(later, TRIBE_ITEMS, data.log.item))
    batches = []
    for log in (data.log, changed):
        fame = item_fame(item_counts(log, -30.0, 28.0, TRIBE_ITEMS + 1))[None]
        builder = ExampleBuilder(log, np.array([-30.0]), 10.0, 64, 0.0, (90.0, 21.0), (90.0,), fame, 2)
        batches.append(builder.build(np.arange(4), np.zeros(4, np.int64), np.random.default_rng(0)))
    for name in ("item", "days", "memory_item", "memory_features", "pool_weights"):
        assert np.array_equal(getattr(batches[0], name), getattr(batches[1], name)), name
    assert not np.array_equal(batches[0].target_item, batches[1].target_item)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    data = two_tribes()
    config = ModelConfig(links=3, width=8, hidden=4, dot=8, user_width=2)
    model = LimeModel(config, item_rows=TRIBE_ITEMS + 1, item_feature_rows=0, user_feature_rows=0)
    with torch.no_grad():
        model.dot_item.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"loss is nan.*learning_rate"):
        Trainer(model, data, SHORT).fit()


def test_a_gradient_that_is_not_finite_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    """The loss is finite and only its gradient is not; a step with it would spoil every weight."""
    trainer = toy_trainer(SHORT, Checkpoints(tmp_path, "toy", every_seconds=0.0))
    steps = iter(range(SHORT.steps))
    weight = trainer.model.dot_item.weight
    weight.register_hook(lambda gradient: gradient * torch.inf if next(steps) == 5 else gradient)
    with pytest.raises(FloatingPointError, match=r"the gradient's norm is (nan|inf) at loss .*learning_rate"):
        trainer.fit()
    saved = Checkpoints(tmp_path, "toy").load("towers")
    assert saved is not None
    assert saved.state["step"] == 5
    assert torch.equal(saved.tensors["model.dot_item.weight"], weight)
    assert all(torch.isfinite(value).all() for value in saved.tensors.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"min_events": 0}, "train.min_events is 0; it must be finite and at least 1"),
        ({"max_events": 0}, "train.max_events is 0"),
        ({"learning_rate": 0.0}, "train.learning_rate is 0.0; it must be finite and above 0"),
        ({"patience": 0}, "train.patience is 0; it must be finite and at least 1"),
        ({"hide_share": 1.0}, "train.hide_share is 1.0; it must be finite and at least 0 and below 1"),
        ({"first_cut_days": 14.0}, "train.first_cut_days is 14; a cut is at least the 28 days"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changed)


def test_no_user_with_enough_events_is_an_error_with_a_remedy() -> None:
    data = two_tribes()
    config = ModelConfig(links=3, width=8, hidden=4, dot=8, user_width=2)
    model = LimeModel(config, item_rows=TRIBE_ITEMS + 1, item_feature_rows=0, user_feature_rows=0)
    with pytest.raises(ValueError, match=r"no user has 1000 events.*min_events"):
        Trainer(model, data, dataclasses.replace(SHORT, min_events=1000))


def test_cross_entropy_by_hand() -> None:
    """Two examples: ln 2 for one of two equal scores; a positive outside the sample (-1) is left out."""
    scores = torch.zeros(3, 2)
    loss = cross_entropy(scores, np.array([0, 1, 2]), np.array([0, 1, -1]))
    assert loss.item() == pytest.approx(np.log(2.0))
