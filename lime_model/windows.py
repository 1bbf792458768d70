"""Windows of a log of labels: consecutive events of a user to predict, behind the history they share.

A target sees what lies before its own session: an answer given in the same basket, page or
second is not known yet. Order and sessions come from the log; nothing is shuffled inside a user.

Letters: n events of the log, B windows, N events of shared history, T targets, S = N + T.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lime_model.errors import TrainingError
from lime_model.examples import EventLog, Floats, Ints

Bools = NDArray[np.bool_]


class Window(NamedTuple):
    """A batch; the last T of the S events are the targets, padding comes first and last."""

    item: Ints  # [B, S] catalogue rows
    action: Ints  # [B, S] codes of event type and label
    days: Floats  # [B, S] before the window's last event
    keep: Bools  # [B, S]
    seen: Ints  # [B, T] targets that lie before each target's session
    users: Ints  # [B] of the log
    label: Floats  # [B, T], 0 where there is none
    counts: Bools  # [B, T] which targets are asked for
    event: Ints  # [B, T] places in the log, -1 past the user's last


@dataclass(frozen=True)
class WindowBuilder:
    """Cuts a log into windows.

    Args:
        log: of which `event_type` holds action codes.
        label: of every event `[n]`, 0 or 1, NaN where it has none.
        history: N.
        targets: T.

    Raises:
        TrainingError: a label is neither 0 nor 1, or N or T is below 1.
    """

    log: EventLog
    label: Floats
    history: int
    targets: int

    def __post_init__(self) -> None:
        for name in ("history", "targets"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be at least 1")
        known = self.label[~np.isnan(self.label)]
        odd = known[(known != 0) & (known != 1)]
        if len(odd):
            raise TrainingError(
                f"{len(odd)} of {len(known)} labels are neither 0 nor 1, such as {odd[0]:g}; "
                "a binary task wants 0, 1 or null: map them when ingesting (ingest.events)"
            )

    @functools.cached_property
    def owner(self) -> Ints:
        """User of every event `[n]`."""
        return self.log.owner

    @functools.cached_property
    def visible(self) -> Ints:
        """Place of the first event that each event does not see `[n]`."""
        return visible_before(self.log)

    def starts(self, asked: Bools) -> Ints:
        """First places of the windows that hold an event asked for `[n]`: every T events of a user.

        Raises:
            TrainingError: no event asked for has a label, or all have the same.
        """
        asked = asked & ~np.isnan(self.label)
        found = np.unique(self.label[asked])
        if len(found) < 2:
            what = f"all are {found[0]:g}" if len(found) else "there are none"
            raise TrainingError(f"labels to learn from: {what}; a binary task needs both 0 and 1")
        place = np.flatnonzero(asked)
        begin = self.log.offsets[self.owner[place]]
        return np.unique(begin + (place - begin) // self.targets * self.targets)

    def build(self, starts: Ints, asked: Bools) -> Window:
        """The windows that start at some places `[B]`."""
        log, owner = self.log, self.owner[starts]
        begin, end = log.offsets[owner][:, None], log.offsets[owner + 1][:, None]
        new = starts[:, None] + np.arange(self.targets)
        until = self.visible[np.minimum(new, end - 1)].min(1)  # all targets see the shared history
        old = until[:, None] + np.arange(-self.history, 0)
        place = np.concatenate([old, new], 1)  # [B, S]
        keep = (place >= begin) & (place < end)
        at = np.where(keep, place, starts[:, None])
        inside, target = keep[:, self.history :], at[:, self.history :]
        days = log.days[at]
        counts = inside & asked[target] & ~np.isnan(self.label[target])
        return Window(
            item=np.where(keep, log.item[at], 0),
            action=np.where(keep, log.event_type[at], 0),
            days=days - days.max(1, keepdims=True),
            keep=keep,
            seen=np.clip(self.visible[target] - starts[:, None], 0, np.arange(self.targets)),
            users=owner,
            label=np.where(counts, self.label[target], 0.0),
            counts=counts,
            event=np.where(inside, target, -1),
        )

    def batches(self, starts: Ints, asked: Bools, size: int) -> Iterator[Window]:
        """All windows in the given order, `size` at a time."""
        for first in range(0, len(starts), size):
            yield self.build(starts[first : first + size], asked)


def visible_before(log: EventLog) -> Ints:
    """Place of the first event that each event of the log does not see: its session's first, `[n]`."""
    parts = []
    for start, stop in zip(log.offsets[:-1], log.offsets[1:], strict=True):
        begun = np.minimum(log.session_start[start:stop], log.days[start:stop])
        parts.append(start + np.searchsorted(log.days[start:stop], begun, side="left"))
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
