"""Training on labels: no target sees its own session, training finds the pattern, and bad input is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lime_model.config import ModelConfig
from lime_model.errors import TrainingError
from lime_model.measure.metrics import auc
from lime_model.model.features import Catalogue, encode_actions, encode_columns
from lime_model.model.lime import LimeModel
from lime_model.peers.registry import PEERS
from lime_model.recipe import LabelTraining
from lime_model.train.checkpoints import Checkpoints
from lime_model.train.event_log import EventLog, TrainingData
from lime_model.train.labels import Asked, LabelTrainer, check_order
from lime_model.train.windows import WindowBuilder, visible_before

USERS, EVENTS, ITEMS = 40, 60, 8
NO_FEATURES = encode_columns({}, {}, USERS)
SHORT = LabelTraining(epochs=12, batch=8, targets=10, learning_rate=5e-3, embedding_rate=2e-2, dropout=0.0)


def moody() -> TrainingData:
    """Return a log whose labels are the user's mood, which is drawn anew every tenth event; history shows it.

    Every tenth label is null.
    """
    rng = np.random.default_rng(0)
    mood = np.repeat(rng.integers(0, 2, (USERS, EVENTS // 10)), 10, axis=1).ravel().astype(float)
    label = np.where(rng.random(len(mood)) < 0.1, 1 - mood, mood)
    label[::10] = np.nan
    item = 1 + rng.integers(0, ITEMS, USERS * EVENTS)
    days = np.tile(np.arange(EVENTS) - EVENTS, USERS).astype(float)
    actions = encode_actions(np.ones(len(item), np.int64), label, config())
    log = EventLog.of(np.arange(USERS + 1) * EVENTS, item, actions, days, label=label)
    ids = [f"{i}" for i in range(ITEMS)]
    catalogue = Catalogue.build(ids, {}, {}, np.ones(ITEMS, np.bool_))
    return TrainingData(log, catalogue, NO_FEATURES, tuple(range(USERS)))


def config(variant: str = "lime-mha") -> ModelConfig:
    return ModelConfig(
        variant=variant,  # type: ignore[arg-type]
        links=3, width=8, hidden=8, dot=8, user_width=2, max_events=12, pool_days=(8.0, 2.0),
        event_types=("answer",), labelled=True, without=("bias", "memory"),
    )  # fmt: skip


def trainer(variant: str = "lime-mha", peer: str | None = None, **changes: object) -> LabelTrainer:
    data = moody()
    torch.manual_seed(1)
    model = LimeModel(config(variant), item_rows=ITEMS + 1, item_feature_rows=0, user_feature_rows=0)
    other = PEERS[peer](config()) if peer else None  # type: ignore[index]
    place = np.tile(np.arange(EVENTS), USERS)
    asked = Asked(place < 40, (place >= 40) & (place < 50))
    checkpoints = changes.pop("checkpoints", None)
    chosen = dataclasses.replace(SHORT, **changes)  # type: ignore[arg-type]
    return LabelTrainer(model, data, asked, chosen, other, checkpoints)  # type: ignore[arg-type]


def last_events() -> np.ndarray:
    return np.tile(np.arange(EVENTS), USERS) >= 50


@pytest.mark.parametrize(("variant", "peer"), [("lime-mha", None), ("lime-xor", None), ("lime-mha", "hstu")])
def test_training_learns_a_mood_from_labels_in_the_history(variant: str, peer: str | None) -> None:
    run = trainer(variant, peer, stride=2)
    curve = run.fit()
    assert curve[-1]["loss"] < curve[0]["loss"]
    found = run.predict(last_events(), 1)
    wanted = last_events() & ~np.isnan(run.data.log.label)
    assert found.event.tolist() == np.flatnonzero(wanted).tolist()
    assert found.label.tolist() == run.data.log.label[wanted].tolist()
    settled = found.event % 10 > 3  # the first events of a mood can't be predicted
    assert auc(found.label[settled], found.logit[settled]) > 0.8


def test_bf16_learns_the_same() -> None:
    """The rounding differs, so the curves differ, by a few times bf16's 2^-8 at most."""
    curves = [trainer("lime-xor", bf16=bf16, epochs=4, stride=2).fit() for bf16 in (False, True)]
    assert curves[0] != curves[1]
    for whole, half in zip(*curves, strict=True):
        assert half["loss"] == pytest.approx(whole["loss"], rel=0.02)
        assert half["valid_ne"] == pytest.approx(whole["valid_ne"], rel=0.02)


def test_a_run_that_is_killed_and_started_again_is_the_same_run(tmp_path: Path) -> None:
    whole = trainer(epochs=2).fit()
    first = trainer(epochs=2, checkpoints=Checkpoints(tmp_path, "toy", every_seconds=0.0))
    step, first_half = first.step, len(whole) * 3

    def until_killed(number: int, optimiser: torch.optim.Optimizer) -> object:
        if number > first_half:
            raise KeyboardInterrupt
        return step(number, optimiser)

    first.step = until_killed  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    again = trainer(epochs=2, checkpoints=Checkpoints(tmp_path, "toy", every_seconds=0.0))
    assert again.fit() == whole


def test_training_stops_when_validation_gets_no_better() -> None:
    run = trainer(epochs=60, validations=30, patience=2, learning_rate=0.05)
    curve = run.fit()
    values = [row["valid_ne"] for row in curve]
    assert len(values) < 30
    assert min(values) == values[-3]
    asked = run.asked.valid
    assert auc(*run.predict(asked, run.config.stride)[1:]) == curve[-3]["valid_auc"]  # the best are kept


def test_a_target_sees_nothing_of_its_session() -> None:
    """Two users; the second's events 2 to 4 share a session that began at day 2."""
    days = np.array([0.0, 1, 2, 0, 1, 2, 2, 3])
    begun = np.array([0.0, 1, 2, 0, 1, 2, 2, 2])
    label = np.array([0, 1, 0, 1, 0, 1, np.nan, 1])
    log = EventLog.of(
        np.array([0, 3, 8]), np.arange(1, 9), np.ones(8, np.int64), days, session_start=begun, label=label
    )
    assert visible_before(log, np.zeros(1, np.int64), np.array([[0, 1, 2]])).tolist() == [[0, 1, 2]]
    assert visible_before(log, np.ones(1, np.int64), np.arange(3, 8)[None]).tolist() == [[3, 4, 5, 5, 5]]
    windows = WindowBuilder(log, history=2, targets=2)
    asked = np.ones(8, np.bool_)
    starts = windows.starts(asked)
    assert starts.tolist() == [0, 2, 3, 5, 7]
    window = windows.build(starts, asked)
    shown = [
        [window.item[b, : window.end[b, t]][window.keep[b, : window.end[b, t]]].tolist()
         for t in range(2) if window.event[b, t] >= 0]
        for b in range(5)
    ]  # fmt: skip
    assert shown == [[[], [1]], [[1, 2]], [[], [4]], [[4, 5], [4, 5]], [[4, 5]]]
    assert window.counts.tolist() == [[True] * 2, [True, False], [True] * 2, [True, False], [True, False]]


@pytest.mark.parametrize("targets", [1, 3, 7])
def test_every_target_sees_the_last_events_before_its_session(targets: int) -> None:
    """Wherever windows cut sessions, no event is skipped and no event of the target's session is shown."""
    rng, sizes = np.random.default_rng(targets), [23, 1, 40]
    days = np.concatenate([np.arange(size) for size in sizes]).astype(float)
    begun = np.concatenate([np.repeat(np.arange(0, size, 4), 4)[:size] for size in sizes]).astype(float)
    begun = np.where(rng.random(len(days)) < 0.2, days, begun)
    offsets, items = np.cumsum([0, *sizes]), np.arange(1, sum(sizes) + 1)
    label = rng.integers(0, 2, len(days)).astype(float)
    log = EventLog.of(offsets, items, np.ones(len(days), np.int64), days, session_start=begun, label=label)
    windows, asked, history = WindowBuilder(log, 6, targets), np.ones(len(days), np.bool_), 6
    found = 0
    for window in windows.batches(windows.starts(asked), asked, 5):
        for b, t in zip(*np.nonzero(window.counts), strict=True):
            event, shown = window.event[b, t], slice(0, window.end[b, t])
            first = offsets[log.owner(np.array([event]))[0]]
            last = first + int(begun[event])  # days count from the user's first event
            seen = window.item[b, shown][window.keep[b, shown]].tolist()
            assert seen == list(range(last + 1 - len(seen), last + 1))
            assert len(seen) >= min(history, last - first)
            found += 1
    assert found == len(days)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0.0, 1.0, 2.0], "1 of 3 labels are neither 0 nor 1, such as 2"),
        ([1.0, 1.0, np.nan], "all are 1; a binary task needs both"),
        ([np.nan] * 3, "there are none"),
    ],
)
def test_bad_labels_are_named(label: list[float], message: str) -> None:
    days = np.arange(3.0)
    ones = np.ones(3, np.int64)
    log = EventLog.of(np.array([0, 3]), ones, ones, days, label=np.array(label))
    with pytest.raises(TrainingError, match=message):
        WindowBuilder(log, 2, 2).starts(np.ones(3, np.bool_))


def test_bad_windows_and_validation_before_training_are_named() -> None:
    ones = np.ones(4, np.int64)
    log = EventLog.of(np.array([0, 2, 4]), ones, ones, np.zeros(4))
    with pytest.raises(TrainingError, match="history is 0"):
        WindowBuilder(log, 0, 2)
    early = Asked(np.array([0, 1, 1, 0]) > 0, np.array([1, 0, 0, 1]) > 0)
    with pytest.raises(TrainingError, match=r"1 events of validation lie before .* such as event 0"):
        check_order(log, early)


def test_a_loss_that_is_not_finite_names_its_users() -> None:
    run = trainer()
    with torch.no_grad():
        run.model.dot_pools.bias.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match=r"for users \d+, .*lower labels.learning_rate"):
        run.fit()


def test_a_validation_that_is_not_finite_ends_the_run_and_keeps_the_best(tmp_path: Path) -> None:
    """The weights are spoilt after the last step before a row of the curve: no loss has seen them."""
    run = trainer(checkpoints=Checkpoints(tmp_path, "toy", every_seconds=0.0))
    measure, rows = run._measure, iter(range(100))

    def spoilt() -> object:
        if next(rows) == 2:
            with torch.no_grad():
                run.model.dot_item.weight.fill_(torch.nan)
        return measure()

    run._measure = spoilt  # type: ignore[method-assign, assignment]
    with pytest.raises(FloatingPointError, match=r"labels: valid_ne is nan in validation"):
        run.fit()
    best = Checkpoints(tmp_path, "toy").load("best labels")
    assert best is not None
    assert all(torch.isfinite(value).all() for value in best.tensors.values())


def test_an_action_encodes_type_and_label() -> None:
    labels, types = np.array([np.nan, 0, 1, 1, 0]), np.array([1, 1, 1, 2, 0])
    shown = ModelConfig(event_types=("a", "b"), labelled=True)
    assert encode_actions(types, labels, shown).tolist() == [1, 2, 3, 6, 0]
    assert shown.actions == 7
    plain = dataclasses.replace(shown, labelled=False)
    assert encode_actions(types, labels, plain).tolist() == types.tolist()


def test_parts_left_out_stay_zero() -> None:
    run = trainer()
    run.fit()
    model = run.model
    assert model.bias_weight == 0
    assert not model.memory(torch.randn(5, 9), torch.randn(5)).any()
    bare = LimeModel(
        dataclasses.replace(config(), without=("dot",)), item_rows=3, item_feature_rows=0, user_feature_rows=0
    )
    assert not bare.dot_item.weight.any()
    with pytest.raises(ValueError, match=r"model.without names 'head'"):
        ModelConfig(without=("head",))  # type: ignore[arg-type]
