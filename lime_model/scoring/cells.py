"""Candidates in the order that the kernels read them: cells of 32 candidates, lane by lane.

A cell is a block of fp32 words with these sections, in this order (letters as in the score):

    beta [32] · norm [32] · d [E, 32] · b16 [F', 32] int16 · a8 [L', 32, 2] uint8 | b [F', 32] · a [L, 32]

with F' = F rounded up to a multiple of 4 and L' = L / 2 rounded up. The int8 pass reads only what is left of
the bar. Right of it are the fp32 factors, from which every score is computed in the end. `a8` are the link
weights as uint8 numbers that sum to 255 (by largest remainder), `norm` is |a - a8 / 255|₂, and `b16` is B in
steps of max|B_f| / 32767.

Letters: C candidates, n rows that are asked for, L links, F hidden units, E width of the dot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lime_model.arrays import F32, F64, Ints
from lime_model.bundle import BundleError
from lime_model.scoring.canonical import Rows

WIDTH = 32  # candidates of a cell


class Shape(NamedTuple):
    """L, F and E, which determine where the sections of a cell lie."""

    links: int
    hidden: int
    dot: int

    @property
    def sections(self) -> dict[str, slice]:
        """The words of a cell that each section takes."""
        units, pairs = -(-self.hidden // 4) * 4, -(-self.links // 2)
        sizes = {
            "beta": WIDTH,
            "norm": WIDTH,
            "d": self.dot * WIDTH,
            "b16": units * WIDTH // 2,
            "a8": pairs * WIDTH // 2,
            "b": units * WIDTH,
            "a": self.links * WIDTH,
        }
        ends = np.cumsum(list(sizes.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}

    @property
    def words(self) -> int:
        """The number of fp32 words of a cell."""
        return self.sections["a"].stop


class Stats(NamedTuple):
    """The largest factors of all candidates, which error bounds read.

    `b_max [F]` is max|B_f|, `drift` is max|Σ_l A_cl - 1|, `d_norm` is max‖d_c‖₂ and `beta_max` is max|β_c|.
    """

    b_max: F64
    drift: float
    d_norm: float
    beta_max: float

    @property
    def b_step(self) -> F64:
        """The step of `b16 [F]`."""
        return self.b_max / 32767

    @classmethod
    def of(cls, rows: Rows) -> Stats:
        """Compute them over some candidates; over none they are zeros."""
        if len(rows.beta) == 0:
            return cls(np.zeros(rows.b.shape[1]), 0.0, 0.0, 0.0)
        b_max = np.abs(rows.b).max(0).astype(np.float64)
        drift = np.abs(rows.a.astype(np.float64).sum(1) - 1.0).max()
        d_norm = np.sqrt((rows.d.astype(np.float64) ** 2).sum(1).max())
        return cls(b_max, float(drift), float(d_norm), float(np.abs(rows.beta).max()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; a float's text in Python reads back to the same bits."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in self._asdict().items()}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Stats:
        """Return the statistics that `to_json` wrote."""
        return cls(**{**raw, "b_max": np.asarray(raw["b_max"], np.float64)})


@dataclass(frozen=True)
class Cells:
    """Packed candidates: `words [cells, shape.words]`, which may be mapped from a file."""

    words: F32
    count: int
    shape: Shape
    stats: Stats

    def __len__(self) -> int:
        return self.count

    @classmethod
    def pack(cls, rows: Rows) -> Cells:
        """Pack candidates in row order.

        Raises:
            BundleError: a number is not finite, or link weights are negative or do not sum to 1 within 1e-3.
        """
        shape = Shape(rows.a.shape[1], rows.b.shape[1], rows.d.shape[1])
        stats, count = Stats.of(rows), len(rows.beta)
        if not all(np.isfinite(side).all() for side in rows):
            raise BundleError("candidates hold NaN or infinity (bank.find_damaged names them)")
        if stats.drift > 1e-3 or (rows.a < 0).any():
            raise BundleError(
                f"link weights must be non-negative and sum to 1; they are off by {stats.drift:.2g}, the "
                f"least is {rows.a.min():.2g}. Rebuild the bank (jobs/build_candidate_bank.py)"
            )
        words = np.zeros((-(-count // WIDTH), shape.words), np.float32)
        if count == 0:
            return cls(words, count, shape, stats)
        for name, values in _sections(rows, stats).items():
            lanes = np.zeros((len(words) * WIDTH, *values.shape[1:]), values.dtype)
            lanes[:count] = values
            laned = np.moveaxis(lanes.reshape(len(words), WIDTH, *values.shape[1:]), 1, 2)
            section = words[:, shape.sections[name]]
            packed = np.ascontiguousarray(laned).reshape(len(words), -1).view(np.float32)
            section[:, : packed.shape[1]] = packed
        return cls(words, count, shape, stats)

    def take(self, rows: Ints) -> Rows:
        """Return copies of the candidates at some rows."""
        cell, lane = rows // WIDTH, rows % WIDTH
        a, b, d = (self._lanes(name)[cell, :, lane] for name in ("a", "b", "d"))
        return Rows(a, b[:, : self.shape.hidden], d, self.words[cell, lane])

    def beta(self, rows: Ints) -> F32:
        """Return β `[n]` of the candidates at some rows."""
        return self.words[rows // WIDTH, rows % WIDTH]

    def slice(self, start: int, stop: int) -> Rows:
        """Return copies of the candidates `[start, stop)`, row by row."""
        stop = min(stop, self.count)
        first, last = start // WIDTH, -(-stop // WIDTH)
        inside = slice(start - first * WIDTH, stop - first * WIDTH)
        parts = (self._lanes(name)[first:last].transpose(0, 2, 1) for name in ("a", "b", "d", "beta"))
        a, b, d, beta = (part.reshape(-1, part.shape[2])[inside] for part in parts)
        return Rows(a, b[:, : self.shape.hidden], d, beta[:, 0])

    def _lanes(self, name: str) -> F32:
        """Return a view of a section as `[cells, values, 32]`."""
        section = self.words[:, self.shape.sections[name]]
        return section.reshape(len(section), section.shape[1] // WIDTH, WIDTH)


def _sections(rows: Rows, stats: Stats) -> dict[str, NDArray[Any]]:
    """Return each section by candidate, as `[C, values]` or, for pairs of links, as `[C, L', 2]`."""
    a8 = quantise_weights(rows.a)
    norm = np.sqrt(((rows.a.astype(np.float64) - a8 / 255.0) ** 2).sum(1))
    step = np.where(stats.b_step > 0, stats.b_step, 1.0)
    pairs = np.pad(a8, ((0, 0), (0, a8.shape[1] % 2))).reshape(len(a8), -(-a8.shape[1] // 2), 2)
    return {
        "beta": rows.beta[:, None],
        # The next fp32 number above: the bound that reads the norm must not shrink by rounding.
        "norm": np.nextafter(norm.astype(np.float32), np.float32(np.inf))[:, None],
        "d": rows.d,
        "b16": np.rint(rows.b / step).astype(np.int16),
        "a8": pairs,
        "b": rows.b,
        "a": rows.a,
    }


def quantise_weights(a: F32) -> NDArray[np.uint8]:
    """Return link weights `[C, L]` as uint8 rows that sum to exactly 255, by largest remainder."""
    if a.size == 0:
        return a.astype(np.uint8)
    wide = a.astype(np.float64)
    exact = wide / wide.sum(1, keepdims=True) * 255
    # Rounding down loses less than 1 per link. The lost units go one each to the links with the largest
    # remainders, so every weight is within one unit of its exact value and the sum is 255: a constant that is
    # added to G then moves a quantised score exactly as much as an exact one.
    floor = np.floor(exact)
    missing = 255 - floor.sum(1)  # below L
    rank = np.argsort(np.argsort(floor - exact, axis=1, kind="stable"), axis=1)
    return (floor + (rank < missing[:, None])).astype(np.uint8)
