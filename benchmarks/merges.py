"""Compare merging new events into a stored state with reading the history again; part of `make bench-nights`.

Letters: U users, N events, L links, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.problem import CONFIG, make_model
from benchmarks.report import Row, interleave, median_ratio, row
from lime_model.bundle import Bundle
from lime_model.model.entries import Entries
from lime_model.model.features import Catalogue
from lime_model.model.links import LinkAttention, SoftmaxSum, finish_softmax, merge_softmax, reduce_pools
from lime_model.rows.link_states import LinkState, StateBuilder, decode_state, decode_sums, encode_state

NEW, LONG = 16, 1024  # new events, and the events before them
ROUNDS = 5
NOBODY = Entries(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))  # a user without features


class Batch(NamedTuple):
    """The histories of some users: `events [U, N, D]`, `days` and `keep [U, N]`, and `queries [U, L, D]`."""

    attention: LinkAttention
    queries: Tensor
    events: Tensor
    days: Tensor
    keep: Tensor

    def reduce(self, start: int, stop: int | None = None) -> list[SoftmaxSum]:
        """Reduce the events from `start` to `stop` to the sums of links and pools."""
        history = self.events[:, start:stop], self.days[:, start:stop], self.keep[:, start:stop]
        return [self.attention.reduce(self.queries, *history), reduce_pools(*history, CONFIG.pool_days)]


def make_batch(attention: nn.Module, users: int, days: NDArray[np.float64]) -> Batch:
    """Draw the events of a batch of users, who share the days.

    Args:
        attention: the reader of a LIME-MHA model.
        users: the number of users.
        days: the days of the events, ascending.
    """
    assert isinstance(attention, LinkAttention)
    events = torch.randn(users, len(days), CONFIG.width, dtype=torch.float64)
    queries = torch.randn(users, CONFIG.links, CONFIG.width, dtype=torch.float64)
    keep = torch.ones(users, len(days), dtype=torch.bool)
    return Batch(attention, queries, events, torch.from_numpy(days).expand(users, -1), keep)


def drift(batch: Batch) -> float:
    """Return the relative error of the first user's state after merges of `NEW` events each.

    Every merge stores the state in fp32. The error is the larger one of links and pools.
    """
    raw = b""
    for start in range(0, batch.events.shape[1], NEW):
        links, pools = (SoftmaxSum(*(part[0] for part in side)) for side in batch.reduce(start, start + NEW))
        if raw:
            before = decode_sums(raw, CONFIG)
            assert isinstance(before.links, SoftmaxSum)
            links, pools = merge_softmax(before.links, links), merge_softmax(before.pools, pools)
        raw = encode_state(LinkState(links, pools))
    whole = [finish_softmax(side)[0] for side in batch.reduce(0)]
    whole[0] = whole[0].transpose(0, 1).flatten(1)  # concatenate the heads
    pairs = zip(decode_state(raw, CONFIG), (part.numpy() for part in whole), strict=True)
    return max(float(np.linalg.norm(mine - exact) / np.linalg.norm(exact)) for mine, exact in pairs)


def read_alone(builder: StateBuilder, days: NDArray[np.float64], before: bytes = b"") -> bytes:
    """Read the events of one user as the job does, and return the state.

    Args:
        builder: the builder of a bundle.
        days: the days of the events, ascending.
        before: the stored state that the events are merged into, if any.
    """
    reader = builder.open(NOBODY, before)
    rows = np.zeros(len(days), np.int64)
    reader.read(rows, rows, days)
    return encode_state(reader.finish())


def compare_merge(users: int = 64) -> list[Row]:
    """Compare merging new events with reading whole histories, for a batch of users and for each alone."""
    torch.set_num_threads(1)
    nothing = Catalogue.build((), {}, {}, np.zeros(0, np.bool_))
    builder = StateBuilder(Bundle(make_model(CONFIG), nothing, {}, {}, {}, ""))
    days = np.sort(np.random.default_rng(0).random(LONG + NEW) * -300)
    batch = make_batch(builder.model.reader, users, days)
    stored, sums = read_alone(builder, days[:LONG]), batch.reduce(0)
    runs = {
        "again": lambda: [read_alone(builder, days) for _ in range(users)],
        "merge": lambda: [read_alone(builder, days[LONG:], stored) for _ in range(users)],
        "batch again": lambda: batch.reduce(0),
        "batch merge": lambda: [merge_softmax(*pair) for pair in zip(sums, batch.reduce(LONG), strict=True)],
    }
    with torch.inference_mode():
        error = drift(batch)
        seconds = interleave(runs, ROUNDS)
    return merge_rows(users, seconds, error)


def merge_rows(users: int, seconds: dict[str, list[float]], error: float) -> list[Row]:
    """Return the rows of `compare_merge`.

    Args:
        users: the number of users.
        seconds: the seconds of each run, one for each round.
        error: the relative error after many merges.
    """
    letters = f"L = {CONFIG.links}, D = {CONFIG.width}, H = {CONFIG.heads}"
    every = f"{LONG + NEW:,} events"
    return [
        row(
            f"compute of {users} users ({letters}): {NEW} new events merged / {every} read again",
            median_ratio(seconds["batch merge"], seconds["batch again"]), "x", "<= 0.025",
        ),
        row(f"a user in the job: {every} read again", 1e3 * float(np.median(seconds["again"])) / users, "ms"),
        row(
            f"a user in the job: {NEW} new events merged / {every} read again",
            median_ratio(seconds["merge"], seconds["again"]), "x",
        ),
        row(
            f"after {LONG // NEW} merges / float64 over {every}, relative difference",
            1e6 * error, "millionths", "<= 10",
        ),
    ]  # fmt: skip
