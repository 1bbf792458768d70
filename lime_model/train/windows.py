"""Windows of a log of labels: consecutive events of a user to predict, and the history before them.

A target sees the events before its own session, because an answer given in the same basket, page or second is
not known yet. Order and sessions come from the log, and the events of a user are never shuffled.

Letters: n events of the log, B windows, N events of history, T targets, S events of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lime_model.arrays import Bools, Floats, Ints
from lime_model.errors import TrainingError
from lime_model.train.event_log import EventLog

LONGEST_SESSION = 1  # in histories of N events; later targets of a longer session see fewer than N events


class Window(NamedTuple):
    """A batch of windows; the last T of the S events are the targets, and padding comes first and last.

    Before the targets lie N events, and in addition as many as the longest part of a session before any
    window's first target. So the targets of that session see N events too, and the targets after it see the
    session.
    """

    item: Ints  # [B, S] catalogue rows
    action: Ints  # [B, S] codes of event type and label
    days: Floats  # [B, S] before the window's last event
    keep: Bools  # [B, S]
    end: Ints  # [B, T] place in the window after the last event that each target sees
    users: Ints  # [B] users of the log
    label: Floats  # [B, T], 0 where there is none
    counts: Bools  # [B, T] which targets are asked for and have a label
    event: Ints  # [B, T] places in the log, -1 after the user's last event


@dataclass(frozen=True)
class WindowBuilder:
    """Cuts a log into windows.

    Args:
        log: the events; `event_type` holds action codes, and labels are 0, 1 or NaN.
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
        """Find where the windows begin that hold at least one event of `asked [n]`.

        The windows of a user begin every T events.

        Raises:
            TrainingError: no event of `asked` has a label, or all have the same one.
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
        """Build the windows that start at some places `[B]`, with targets among `asked [n]`."""
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
        """Yield all windows in the given order.

        Args:
            starts: places where windows start.
            asked: which events are targets `[n]`.
            size: windows of a batch.
        """
        for first in range(0, len(starts), size):
            yield self.build(starts[first : first + size], asked)


def visible_before(log: EventLog, users: Ints, events: Ints) -> Ints:
    """Find the first event that each event does not see, which is the first of its session.

    Args:
        log: the events.
        users: `[B]`.
        events: places in the log of events of these users `[B, T]`.

    Returns:
        Places in the log `[B, T]`.
    """
    begun = np.minimum(log.session_start[events], log.days[events])
    rows = []
    for user, times in zip(users, begun, strict=True):
        start, stop = log.offsets[user : user + 2]
        rows.append(start + np.searchsorted(log.days[start:stop], times, side="left"))
    return np.stack(rows).astype(np.int64) if rows else np.zeros(events.shape, np.int64)
