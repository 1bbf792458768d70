"""Compute offline metrics of models of labels, which predict each event as the night of its day would have.

An event is predicted from the history before its day, as a nightly job would have read it, with the users and
their features that the evaluated night reads, and with the items that the bundle contains (a later item is
unknown). A baseline without a model uses the same history: the mean label of the item and of the user before
that day.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from lime_model.bundle import Bundle
from lime_model.errors import TrainingError
from lime_model.measure.metrics import (
    auc,
    auc_interval,
    calibration,
    grouped_auc,
    log_loss,
    normalised_entropy,
)
from lime_model.train.dataset import build_training_data
from lime_model.train.event_log import TrainingData
from lime_model.train.fit import TrainingSource
from lime_model.train.labels import Answerer, Predictions, predict
from lime_model.train.windows import WindowBuilder
from pipelines.learn.training_log import read_source
from pipelines.models.bundles import find_bundle
from pipelines.settings.base import SettingsError
from pipelines.store.tables import Warehouse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LONGEST = 4096  # events of a history that are read; the states of nightly jobs read all
BLOCK, TARGETS = 8, 32  # the number of windows in a batch, and of predicted events in a window
PRIOR = 10.0  # the weight of the overall mean in the mean of an item or user, as a number of labels
POLICY = "labels"  # replaces the name of a policy, as nothing is listed


def evaluate_labels(
    warehouse: Warehouse, night: str, contestants: Mapping[str, tuple[str, str]], *, horizon_days: int
) -> list[dict[str, Any]]:
    """Measure bundles and the baseline of means, over all labelled events from the night on.

    Args:
        warehouse: the warehouse that contains the log; its settings name the storage of bundles.
        night: the date (YYYY-MM-DD) of the first day whose events are predicted.
        contestants: the model and the model version by the name that they get in the metrics.
        horizon_days: the number of days, from the night on, whose events are predicted.

    Returns:
        The rows of `measure_labels`; the first is that of the baseline.

    Raises:
        SettingsError: a bundle was trained on events of the night or later, or no event of these days has a
            label.
    """
    until = str(dt.date.fromisoformat(night) + dt.timedelta(days=horizon_days))
    bundles = {name: find_bundle(warehouse, *which) for name, which in contestants.items()}
    source = read_source(warehouse, until, known=night)
    rows: list[dict[str, Any]] = []
    for name, bundle in bundles.items():
        if bundle.config.cutoff_ds > night:
            raise SettingsError(
                f"model {name!r} was trained on events before {bundle.config.cutoff_ds} and can't be judged "
                f"on those from {night} on; evaluate as of {bundle.config.cutoff_ds} or later, or train again"
            )
        try:
            found, data = predict_days(bundle, source, night, until)
        except TrainingError as error:
            raise SettingsError(f"{night} to {until}: {error}") from error
        if not rows:
            rows.append(measure_labels("item and user mean", mean_labels(data, night, until, found), data))
        rows.append(measure_labels(name, found, data))
    return rows


def predict_days(
    bundle: Bundle, source: TrainingSource, night: str, until: str
) -> tuple[Predictions, TrainingData]:
    """Predict the labelled events of some days, each from the days before its own.

    Args:
        bundle: the bundle that predicts.
        source: the log before `until`, and the users.
        night: the first day whose events are predicted (YYYY-MM-DD).
        until: the day after the last one (YYYY-MM-DD).

    Returns:
        The predictions, and the data that their event numbers refer to, whose times are in days from `until`.
    """
    config = dataclasses.replace(bundle.config, cutoff_ds=until)  # the model reads only gaps between times
    data = build_training_data(source.events, source.users, bundle.catalogue, bundle.user_encoders, config)
    day = np.floor(data.log.days)  # the cut-off is a midnight
    data = dataclasses.replace(
        data, log=data.log._replace(session_start=np.minimum(data.log.session_start, day))
    )
    longest = min(LONGEST, int(np.diff(data.log.offsets).max()))
    windows = WindowBuilder(data.log, longest, TARGETS)  # LIME-XOR's links read only the last events of each
    net = Answerer(bundle.model.float(), data).eval()
    return predict(net, windows, data.log.days >= _days(night, until), BLOCK, stride=1), data


def _days(night: str, until: str) -> int:
    """Return the night as the number of days from the cut-off of the data, which is negative."""
    return int((np.datetime64(night, "D") - np.datetime64(until, "D")).astype(np.int64))


def mean_labels(data: TrainingData, night: str, until: str, found: Predictions) -> Predictions:
    """Predict the same events by the mean labels of their item and their user before their day.

    Items that the bundle behind `data` does not know share a mean.

    Args:
        data: the events before `until`, with times in days from `until`.
        night: the first day whose events are predicted; the overall mean is that of the labels before it.
        until: the cut-off of the data.
        found: the predictions of a model, which name the events.

    Returns:
        `found` with other logits: the sum of the two logits of the means, less that of the overall mean.
    """
    log = data.log
    labelled = np.flatnonzero(~np.isnan(log.label))
    label, day = log.label[labelled], np.floor(log.days[labelled]).astype(np.int64)
    asked_day = np.floor(log.days[found.event]).astype(np.int64)
    earlier = label[day < _days(night, until)]
    mean = float(np.clip(earlier.mean(), 1e-3, 1 - 1e-3)) if len(earlier) else 0.5
    total = np.full(len(found.event), -logit(mean))
    for of in (lambda events: log.item[events], log.owner):
        count, ones = count_before(of(labelled), day, label, of(found.event), asked_day)
        total += logit((ones + PRIOR * mean) / (count + PRIOR))
    return found._replace(logit=total)


def count_before(group: Ints, day: Ints, label: Floats, asked: Ints, asked_day: Ints) -> tuple[Ints, Floats]:
    """Count and sum the labels of some groups before some days.

    Args:
        group: the group of each labelled event `[n]`, such as its item or its user.
        day: the day of each labelled event `[n]`.
        label: the label of each labelled event `[n]`.
        asked: the group of each question `[m]`.
        asked_day: the day of each question `[m]`; labels of that day do not count.

    Returns:
        The number of labels `[m]`, and their sum `[m]`.
    """
    days = np.concatenate([day, asked_day])
    begin, span = days.min(initial=0), int(np.ptp(np.append(days, 0))) + 1
    place = group * span + day - begin
    order = np.argsort(place, kind="stable")
    place, sums = place[order], np.append(0.0, np.cumsum(label[order]))
    first = np.searchsorted(place, asked * span)
    last = np.searchsorted(place, asked * span + asked_day - begin)
    return last - first, sums[last] - sums[first]


def measure_labels(name: str, found: Predictions, data: TrainingData) -> dict[str, Any]:
    """Measure the predictions of one model.

    Args:
        name: the name of the model or baseline in the row.
        found: the predictions, with the labels.
        data: the data that the event numbers of `found` refer to.

    Returns:
        A row with the AUC (with its 95% interval over users), the AUC within users, and other metrics of
        `lime_model.measure.metrics`.
    """
    owner = data.log.owner(found.event)
    return {
        "model": name,
        "policy": POLICY,
        "users": len(np.unique(owner)),
        "events": len(found.event),
        "auc": round(auc(found.label, found.logit), 4),
        "auc_95": [round(end, 4) for end in auc_interval(found.label, found.logit, owner)],
        "grouped_auc": round(grouped_auc(found.label, found.logit, owner), 4),
        "normalised_entropy": round(normalised_entropy(found.label, found.logit), 4),
        "log_loss": round(log_loss(found.label, found.logit), 4),
        "calibration": round(calibration(found.label, found.logit), 4),
    }
