"""Windows of a log of labels: consecutive events of a user to predict, behind the history they share.

A target sees what lies before its own session: an answer given in the same basket, page or
second is not known yet. Order and sessions come from the log; nothing is shuffled inside a user.

Letters: n events of the log, B windows, N events of history, T targets, S events of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lime_model.arrays import Bools, Floats, Ints
from lime_model.errors import TrainingError
from lime_model.train.examples import EventLog

LONGEST_SESSION = 1  # history; of a longer session the later targets see less


class Window(NamedTuple):
    """A batch; the last T of the S events are the targets, padding comes first and last.

    Before the targets lie N events and the longest part of a session that any window begins in, so that
    the targets of that session see N events too, and those after it the session.
    """

    item: Ints  # [B, S] catalogue rows
    action: Ints  # [B, S] codes of event type and label
    days: Floats  # [B, S] before the window's last event
    keep: Bools  # [B, S]
    end: Ints  # [B, T] place in the window after the last event that each target sees
    users: Ints  # [B] of the log
    label: Floats  # [B, T], 0 where there is none
    counts: Bools  # [B, T] which targets are asked for
    event: Ints  # [B, T] places in the log, -1 past the user's last


@dataclass(frozen=True)
class WindowBuilder:
    """Cuts a log into windows.

    Args:
        log: of which `event_type` holds action codes, and labels are 0, 1 or NaN.
        history: N.
        targets: T.

    Raises:
        TrainingError: a label is neither 0 nor 1, or N or T is below 1.
    """

    log: EventLog
    history: int
    targets: int

    def __post_init__(self) -> None:
        for name in ("history", "targets"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be at least 1")
        label = self.log.label
        known = ~np.isnan(label)
        odd = label[known & (label != 0) & (label != 1)]
        if len(odd):
            raise TrainingError(
                f"{len(odd)} of {known.sum()} labels are neither 0 nor 1, such as {odd[0]:g}; "
                "a binary task wants 0, 1 or null: map them when ingesting (ingest.events)"
            )

    def starts(self, asked: Bools) -> Ints:
        """First places of the windows that hold an event asked for `[n]`: every T events of a user.

        Raises:
            TrainingError: no event asked for has a label, or all have the same.
        """
        asked = asked & ~np.isnan(self.log.label)
        found = np.unique(self.log.label[asked])
        if len(found) < 2:
            what = f"all are {found[0]:g}" if len(found) else "there are none"
            raise TrainingError(f"labels to learn from: {what}; a binary task needs both 0 and 1")
        place = np.flatnonzero(asked)
        begin = self.log.offsets[self.log.owner(place)]
        return np.unique(begin + (place - begin) // self.targets * self.targets)

    def build(self, starts: Ints, asked: Bools) -> Window:
        """The windows that start at some places `[B]`."""
        log, owner = self.log, self.log.owner(starts)
        begin, end = log.offsets[owner][:, None], log.offsets[owner + 1][:, None]
        new = starts[:, None] + np.arange(self.targets)
        visible = visible_before(log, owner, np.minimum(new, end - 1))  # [B, T]
        begun = min(int((starts - visible.min(1)).max()), LONGEST_SESSION * self.history)
        place = starts[:, None] + np.arange(-self.history - begun, self.targets)  # [B, S]
        keep = (place >= begin) & (place < end)
        at = np.where(keep, place, starts[:, None])
        inside, target = keep[:, -self.targets :], at[:, -self.targets :]
        days = log.days[at]
        counts = inside & asked[target] & ~np.isnan(log.label[target])
        return Window(
            item=np.where(keep, log.item[at], 0),
            action=np.where(keep, log.event_type[at], 0),
            days=days - days.max(1, keepdims=True),
            keep=keep,
            end=np.maximum(visible - place[:, :1], 0),
            users=owner,
            label=np.where(counts, log.label[target], 0.0),
            counts=counts,
            event=np.where(inside, target, -1),
        )

    def batches(self, starts: Ints, asked: Bools, size: int) -> Iterator[Window]:
        """All windows in the given order, `size` at a time."""
        for first in range(0, len(starts), size):
            yield self.build(starts[first : first + size], asked)


def visible_before(log: EventLog, users: Ints, events: Ints) -> Ints:
    """Place of the first event that some events `[B, T]` of users `[B]` do not see: their session's first."""
    begun = np.minimum(log.session_start[events], log.days[events])
    rows = []
    for user, times in zip(users, begun, strict=True):
        start, stop = log.offsets[user : user + 2]
        rows.append(start + np.searchsorted(log.days[start:stop], times, side="left"))
    return np.stack(rows).astype(np.int64) if rows else np.zeros(events.shape, np.int64)
