"""Link states as rows of a table: built from one user's events, written to bytes and read back.

Users are reduced one at a time, in float64, in pieces of a fixed number of events counted from the start of
the history. So a state does not depend on other users, on partitioning or on the sizes of Arrow batches. It
is stored as little-endian fp32.

Layout of a row, R rows of W numbers:

    LIME-MHA   per head and link: top, weight, mean [D / H]      then the pools
    LIME-XOR   P_u [L, D]                                        then the pools
    pools      per pool: top, weight, mean [D]

The mean is stored instead of the monoid's total, so that fp32 keeps its digits over many merges. `top` is
rounded to fp32 first, and weight and mean are relative to the rounded value.

Letters: N events of a piece, L links, H heads, D width, W = D / H, J pools, R rows of a softmax sum, P
entries of a row's features, I items.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lime_model.arrays import F32, Floats, Ints
from lime_model.bundle import Bundle, BundleError, known_item_vectors, worker_bundle
from lime_model.config import ModelConfig
from lime_model.model.entries import Entries
from lime_model.model.lime import Features, History
from lime_model.model.links import LinkAttention, SoftmaxSum, finish_softmax, merge_softmax, reduce_pools

PIECE = 4096  # events reduced at once; part of the definition of the stored bits
ALIKE = 4096  # different features whose contextual links a worker keeps


class LinkState(NamedTuple):
    """A user's state: `links` (a monoid for LIME-MHA, P_u `[L, D]` for LIME-XOR) and the monoid `pools`."""

    links: SoftmaxSum | Tensor
    pools: SoftmaxSum


def state_bytes(config: ModelConfig) -> int:
    """Return the number of bytes of a stored state."""
    mha = config.heads * config.links * (2 + config.width // config.heads)
    links = mha if config.variant == "lime-mha" else config.links * config.width
    return 4 * (links + config.pools * (2 + config.width))


def encode_state(state: LinkState) -> bytes:
    """Return a state as fixed-width fp32 bytes."""
    parts = _parts(state.links) if isinstance(state.links, SoftmaxSum) else [state.links.numpy()]
    return b"".join(part.astype("<f4").tobytes() for part in [*parts, *_parts(state.pools)])


def decode_state(raw: bytes, config: ModelConfig) -> tuple[Floats, Floats]:
    """Return P_u `[L, D]` and pools `[J, D]` of a stored state, in float64.

    Raises:
        BundleError: the length is not that of this model, or a number is not finite.
    """
    if not raw:
        raise BundleError(
            "there is no link state: the user's columns can't be read, or the state's numbers were not finite"
        )
    if len(raw) != state_bytes(config):
        raise BundleError(
            f"a link state has {len(raw)} bytes and {config.variant} wants {state_bytes(config)}; "
            "rebuild the link states with this bundle (jobs/build_link_states.py)"
        )
    links, pools = _split(raw, config)
    if config.variant == "lime-mha":
        links = links[..., 2:].transpose(1, 0, 2)
    rows = links.reshape(config.links, config.width), pools[:, 2:]
    if not all(np.isfinite(part).all() for part in rows):
        raise BundleError("a link state holds NaN or infinity; rebuild it (jobs/build_link_states.py)")
    return np.ascontiguousarray(rows[0]), np.ascontiguousarray(rows[1])


def decode_sums(raw: bytes, config: ModelConfig) -> LinkState:
    """Return a stored LIME-MHA state, which must be valid, as sums that new events can be merged into."""
    links, pools = _split(raw, config)
    return LinkState(_sums(links), _sums(pools))


def _split(raw: bytes, config: ModelConfig) -> tuple[Floats, Floats]:
    """Return the rows of the links (LIME-MHA: `[H, L, 2 + W]`) and of the pools `[J, 2 + D]`."""
    flat = np.frombuffer(raw, "<f4").astype(np.float64)
    pools = flat[-config.pools * (2 + config.width) :].reshape(config.pools, 2 + config.width)
    links = flat[: -pools.size]
    return links.reshape(config.heads, config.links, -1) if config.variant == "lime-mha" else links, pools


def _sums(rows: Floats) -> SoftmaxSum:
    """Return the sums whose rows `_parts` wrote."""
    top, weight, mean = (torch.from_numpy(part) for part in np.split(rows, [1, 2], -1))
    return SoftmaxSum(top[..., 0], weight[..., 0], mean * weight)


class StateBuilder:
    """Reads histories into link states with one bundle; a worker makes it once."""

    def __init__(self, bundle: Bundle) -> None:
        self.config = bundle.config
        self.vectors = torch.from_numpy(known_item_vectors(bundle.model, bundle.catalogue))  # [I + 1, D]
        self.model = bundle.model.double()
        self.queries: dict[tuple[bytes, bytes], Tensor] = {}

    def query(self, features: Entries) -> Tensor:
        """Return Q_u `[1, L, D]` of one user with features `[1, P]`; users with equal features share it."""
        key = features.slots.tobytes(), features.weights.tobytes()
        if key not in self.queries:
            if len(self.queries) == ALIKE:
                self.queries.clear()
            with torch.inference_mode():
                self.queries[key] = self.model.links.contextual(self.model.users(Features.of(features)))
        return self.queries[key]

    def open(self, features: Entries, before: bytes = b"") -> HistoryReader:
        """Return a reader for a user with features `[1, P]`, which continues the stored state `before`."""
        reader = HistoryReader(self, self.query(features))
        if before:
            reader.state = decode_sums(before, self.config)
        return reader

    def embed(self, items: Ints, types: Ints, days: Floats) -> History:
        """Embed events as one history `[1, N, *]`.

        Args:
            items: catalogue rows `[N]`.
            types: event type codes `[N]`.
            days: event times from the bundle's cut-off `[N]`.
        """
        events = self.model.embed_events(self.vectors[torch.from_numpy(items)], torch.from_numpy(types))
        keep = torch.ones(1, len(items), dtype=torch.bool)
        return History(events[None], torch.from_numpy(days)[None], keep)


@functools.cache
def worker_states(folder: Path) -> StateBuilder:
    """Return the builder of a bundle, one per worker process, as embedding the catalogue takes a second."""
    return StateBuilder(worker_bundle(folder))


class HistoryReader:
    """The state of one user under construction, from the history in order, `PIECE` events at a time.

    LIME-MHA may read the events in any order.

    Args:
        builder: the bundle's builder.
        queries: Q_u `[1, L, D]`.
    """

    def __init__(self, builder: StateBuilder, queries: Tensor) -> None:
        self.builder, self.model, self.queries = builder, builder.model, queries
        self.state: LinkState | None = None
        self.tail: tuple[Ints, Ints, Floats] = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    def read(self, items: Ints, types: Ints, days: Floats) -> None:
        """Read the next events.

        Args:
            items: catalogue rows `[N]`, 0 where unknown.
            types: event type codes `[N]`, 0 where unknown.
            days: event times from the bundle's cut-off `[N]`.
        """
        with torch.inference_mode():
            history = self.builder.embed(items, types, days)
            pools = _first(reduce_pools(*history, self.builder.config.pool_days))
            reader = self.model.reader
            if isinstance(reader, LinkAttention):
                piece = LinkState(_first(reader.reduce(self.queries, *history)), pools)
            else:
                piece = LinkState(self.queries[0], pools)  # P_u is computed at the end, from the tail
                joined = zip(self.tail, (items, types, days), strict=True)
                last = -self.builder.config.max_events
                self.tail = tuple(np.concatenate(pair)[last:] for pair in joined)  # type: ignore[assignment]
            self.state = piece if self.state is None else _merge(self.state, piece)

    def finish(self) -> LinkState:
        """Return the state of all events read; an empty history gives P_u = 0 and empty pools."""
        if self.state is None:
            self.read(*self.tail)
        assert self.state is not None
        if isinstance(self.model.reader, LinkAttention):
            return self.state
        with torch.inference_mode():
            links: Tensor = self.model.reader(self.queries, *self.builder.embed(*self.tail))
        return self.state._replace(links=links[0])


def _first(x: SoftmaxSum) -> SoftmaxSum:
    """Remove the batch dimension, whose size is one."""
    return SoftmaxSum(*(part[0] for part in x))


def _merge(a: LinkState, b: LinkState) -> LinkState:
    """Merge the states of two disjoint sets of events; `finish` computes the links of LIME-XOR."""
    links: SoftmaxSum | Tensor = a.links
    if isinstance(a.links, SoftmaxSum) and isinstance(b.links, SoftmaxSum):
        links = merge_softmax(a.links, b.links)
    return LinkState(links, merge_softmax(a.pools, b.pools))


def _parts(state: SoftmaxSum) -> list[F32]:
    """Return the rows (top, weight, mean) of a softmax sum in one array `[..., R, 2 + W]`."""
    top = state.top.to(torch.float32).to(state.top.dtype)
    finite = torch.isfinite(top)
    shift = torch.where(finite, torch.exp(state.top - torch.where(finite, top, 0.0)), 0.0)
    head = torch.stack([top, state.weight * shift], -1)
    return [torch.cat([head, finish_softmax(state)], -1).numpy()]
