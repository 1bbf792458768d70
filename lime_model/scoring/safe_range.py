"""Where fp32 keeps its relative precision, so that the filters' error bounds hold.

The bounds are relative to the largest terms of a score. So nothing may overflow, and what fp32 loses near
zero must be small compared with the whole score.

Letters: L links, F hidden units, E width of the dot.
"""

from __future__ import annotations

import numpy as np

from lime_model.scoring.canonical import Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Query

LARGEST, SMALLEST = 1e30, 1e-25  # far inside fp32's 3e38 and 1e-38: sums and int8 steps need room
TINY = 2.0**-126  # the smallest normal fp32 number; processors may treat smaller ones as zero
SPARE = 2.0**-24 / 20  # the share of a score's terms that the bounds leave for losses near zero


def in_safe_range(weights: Weights, user: Query, cells: Cells) -> bool:
    """Whether the bounds of all filters hold for a user over a shard.

    Args:
        weights: shared parameters.
        user: the user; only its factors are read.
        cells: the shard; only its statistics are read.
    """
    out, stats = np.abs(weights.out), cells.stats
    g, e = np.abs(user.factors.g).max(0).astype(np.float64), np.abs(user.factors.e.astype(np.float64))
    hidden, norm, width = g + stats.b_max, float(np.linalg.norm(e)), len(user.factors.g) + 2
    total = out @ hidden + norm * stats.d_norm + stats.beta_max
    largest = max(total, stats.d_norm, *(side.max(initial=0.0) for side in (hidden, e, out)))
    if total == 0.0:
        return bool(largest < LARGEST)
    # Below `TINY` fp32 has fewer digits or none: an operation, or a number that is read, may be off by `TINY`
    # whatever its size. A loss in a hidden unit is multiplied by that unit's w, and a loss in w by the unit,
    # even where their product looks ordinary. The sum below has, in this order, the links and B of each unit,
    # its w, the products with w, and the dot product with both of its sides.
    lost = out.sum() * width + hidden.sum() + len(out) + len(e) * (1 + norm + stats.d_norm) + 2
    return bool(largest < LARGEST and total > SMALLEST and TINY * lost < SPARE * total)
