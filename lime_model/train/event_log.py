"""The event log that training reads, and counts of the items in it.

Letters: U users, n events of the log, I items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lime_model.arrays import F32, Floats, Ints
from lime_model.model.entries import Entries
from lime_model.model.features import Catalogue


class EventLog(NamedTuple):
    """Events grouped by user, in time order within each user.

    `offsets [U + 1]` are the places where users begin. The other arrays are `[n]` and may be mapped from
    disk: `item` is the catalogue row (0: not in the catalogue), `event_type` is the action code where the
    model is shown labels, `days` and `session_start` are days from the bundle's cut-off, and `label` is NaN
    where an event has none.
    """

    offsets: Ints
    item: Ints
    event_type: Ints
    days: Floats
    session_start: Floats
    label: Floats

    @classmethod
    def of(
        cls, offsets: Ints, item: Ints, event_type: Ints, days: Floats, *,
        session_start: Floats | None = None, label: Floats | None = None,
    ) -> EventLog:  # fmt: skip
        """Build a log; by default each event is a session of its own, and no event has a label.

        Args:
            offsets: places where users begin, and the number of events `[U + 1]`.
            item: catalogue rows `[n]`.
            event_type: codes of event types, or action codes `[n]`.
            days: event times `[n]`.
            session_start: when the session of each event began `[n]`.
            label: labels `[n]`, NaN for none.
        """
        begun = days if session_start is None else session_start
        return cls(
            offsets, item, event_type, days, begun, np.full(len(item), np.nan) if label is None else label
        )

    @property
    def owners(self) -> Ints:
        """The user of every event `[n]`; meant for a chunk, as it fills memory for a whole log."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def owner(self, events: Ints) -> Ints:
        """Return the users of the events at some places of the log."""
        return np.searchsorted(self.offsets, events, side="right") - 1

    def chunks(self, events: int = 1_000_000) -> Iterator[EventLog]:
        """Yield the log in pieces of whole users, each with at least `events` events except the last."""
        users, first = len(self.offsets) - 1, 0
        while first < users:
            wanted = np.searchsorted(self.offsets, self.offsets[first] + events)
            last = min(max(int(wanted), first + 1), users)
            start = self.offsets[first]
            part = slice(start, self.offsets[last])
            yield EventLog(
                self.offsets[first : last + 1] - start,
                self.item[part],
                self.event_type[part],
                self.days[part],
                self.session_start[part],
                self.label[part],
            )
            first = last


@dataclass(frozen=True)
class TrainingData:
    """The log, the catalogue of its items, and the features and ids of its users `[U]`."""

    log: EventLog
    catalogue: Catalogue
    users: Entries
    ids: tuple[object, ...]

    def name_users(self, users: Ints, most: int = 8) -> str:
        """Name at most `most` of some users by their ids, for a message."""
        chosen = np.unique(users)
        named = ", ".join(repr(self.ids[user]) for user in chosen[:most])
        return f"users {named}" + (f" and {len(chosen) - most} more" if len(chosen) > most else "")


def item_counts(log: EventLog, cut: float, window: float, rows: int) -> Ints:
    """Count, for every item, its recent events, all its events and its users before a cut.

    Args:
        log: the events.
        cut: days from the bundle's cut-off; later events do not count.
        window: days before the cut whose events are recent.
        rows: rows of the catalogue, I + 1.

    Returns:
        The three counts `[rows, 3]`, with zeros in row 0, which is every unknown item.
    """
    counts = np.zeros((rows, 3), np.int64)
    for part in log.chunks():
        before = part.days < cut
        item, recent = part.item[before], part.item[before & (part.days >= cut - window)]
        takers = np.unique(item * len(part.offsets) + part.owners[before]) // len(part.offsets)
        counts += np.stack([np.bincount(x, minlength=rows) for x in (recent, item, takers)], 1)
    counts[0] = 0
    return counts


def item_fame(counts: Ints) -> F32:
    """Return log1p of `item_counts`, as the repeat memory reads them."""
    return np.log1p(counts).astype(np.float32)
