"""The exactness certificate: a user's published list is compared with the unfolded model in float64.

Only the bundle and its encoding of ids and columns are shared with the scoring path. The history is read
again from raw events, and attention and head run unfolded over every candidate.

Letters: U users, C candidates (here every item of the corpus), N events, D width, P entries of a row's
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lime_model.arrays import F32, Bools, Floats, Ints
from lime_model.bundle import Bundle
from lime_model.config import MEMORY_FEATURES
from lime_model.model.entries import Entries
from lime_model.model.lime import Features, History, UserState
from lime_model.model.repeat_memory import compute_memory_features
from lime_model.rows.items import ItemInputs

CHUNK = 512  # candidates at once, so that the [U, C, D] buffer fits a cache


class Finding(NamedTuple):
    """The outcome for one user; an empty `fault` means that the list passed."""

    fault: str
    worst: float  # largest |published - recomputed| / max(1, |score|)


@dataclass(frozen=True)
class RawHistory:
    """One user's events in time order, and features.

    `items [N]` are corpus rows, `rows [N]` catalogue rows, `types [N]` event type codes, `days [N]` event
    times from the bundle's cut-off, and `features [1, P]` the user's entries.
    """

    items: Ints
    rows: Ints
    types: Ints
    days: Floats
    features: Entries


class Certifier:
    """Recomputes users with one bundle over one corpus.

    Args:
        bundle: the model.
        items: items of the corpus `[C]`, in item-id order.
        recent: events of each item in the bias window `[C]`.
        eligible: which items may be recommended `[C]`.
    """

    def __init__(self, bundle: Bundle, items: ItemInputs, recent: Floats, eligible: Bools) -> None:
        self.bundle, self.model = bundle, bundle.model.double()
        self.eligible = eligible
        with torch.inference_mode():
            ids = torch.from_numpy(items.id_rows)
            self.items = self.model.items(ids, Features.of(items.features))  # T [C, D]
            self.known = self.model.embed_items(bundle.catalogue)
            self.bias = self.model.item_bias(torch.from_numpy(recent)).numpy()

    def scores(self, histories: Sequence[RawHistory]) -> Floats:
        """Compute the scores `[U, C]` of every candidate, without exclusions and eligibility."""
        with torch.inference_mode():
            states = [self._read(history) for history in histories]
            state = UserState(*(torch.cat(parts) for parts in zip(*states, strict=True)))
            base = torch.cat([self.model.base_scores(state, part) for part in self.items.split(CHUNK)], 1)
            for row, history in zip(base, histories, strict=True):
                items, features = self._memory(history)
                at = torch.from_numpy(items)
                row[at] = row[at] + self.model.repeat_boost(torch.from_numpy(features), row[at])
        return np.asarray(base.numpy() + self.bias)

    def check(
        self,
        scores: Floats,
        excluded: Ints,
        rows: Ints,
        published: F32,
        k: int,
        tolerance: float,
    ) -> Finding:
        """Compare one user's published list with the recomputed scores.

        Args:
            scores: the recomputed scores `[C]`.
            excluded: corpus rows that must not be listed.
            rows: corpus rows of the list `[k]`, -1 for an unknown item.
            published: scores of the list `[k]`.
            k: wanted list length.
            tolerance: largest relative error of a score.
        """
        allowed = self.eligible.copy()
        allowed[excluded] = False
        if len(rows) != min(k, int(allowed.sum())):
            return Finding(f"{len(rows)} candidates listed, {min(k, int(allowed.sum()))} exist", np.inf)
        if (rows < 0).any() or len(np.unique(rows)) != len(rows) or not allowed[rows].all():
            return Finding("an unknown, excluded, ineligible or repeated item is listed", np.inf)
        given = published.astype(np.float64)
        if not (np.isfinite(given).all() and np.isfinite(scores[rows]).all()):
            return Finding("a score is not finite", np.inf)
        if list(zip(-given, rows, strict=True)) != sorted(zip(-given, rows, strict=True)):
            return Finding("the list is not in order of (score, item id)", np.inf)
        if len(rows) == 0:
            return Finding("", 0.0)
        error = np.abs(scores[rows] - given) / np.maximum(1.0, np.abs(given))
        if error.max() > tolerance:
            return Finding(
                f"a score is off by {error.max():.2e}, tolerance {tolerance:.0e}", float(error.max())
            )
        allowed[rows] = False
        margin = tolerance * max(1.0, abs(given[-1]))
        best_left = scores[allowed].max(initial=-np.inf)
        if best_left > given[-1] + margin:
            return Finding(
                f"an unlisted item scores {best_left:.6f}, the last listed {given[-1]:.6f}",
                float(error.max()),
            )
        return Finding("", float(error.max()))

    def _read(self, history: RawHistory) -> UserState:
        """Read one user's state with the unfolded model."""
        known = self.known[torch.from_numpy(history.rows)]
        events = self.model.embed_events(known, torch.from_numpy(history.types))
        keep = torch.ones(1, len(history.rows), dtype=torch.bool)
        days = torch.from_numpy(history.days)[None]
        return self.model.read(History(events[None], days, keep), Features.of(history.features))

    def _memory(self, history: RawHistory) -> tuple[Ints, Floats]:
        """Return corpus rows of the distinct items and their memory features, computed by plain loops."""
        by_item: dict[int, list[float]] = {}
        for item, day in zip(history.items.tolist(), history.days.tolist(), strict=True):
            by_item.setdefault(item, []).append(day)
        items = np.asarray(sorted(by_item), np.int64)
        if len(items) == 0:
            return items, np.zeros((0, MEMORY_FEATURES))
        row_of = dict(zip(history.items.tolist(), history.rows.tolist(), strict=True))
        now, windows = float(history.days[-1]), self.bundle.config.memory_days
        days = [by_item[item] for item in items.tolist()]
        decays = [[sum(np.exp((day - now) / w) for day in times) for w in windows] for times in days]
        features = compute_memory_features(
            np.asarray([len(times) for times in days], np.float64),
            np.asarray([now - times[-1] for times in days]),
            np.asarray([times[-1] - times[0] for times in days]),
            np.asarray(decays),
            self.bundle.catalogue.fame[[row_of[item] for item in items.tolist()]],
        )
        return items, features.astype(np.float64)
