"""Users, bank and model must fit each other; what does not is refused with both sides named.

Letters: L links, F hidden units, E width of the dot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lime_model.errors import LimeError
from lime_model.scoring.canonical import Weights
from lime_model.scoring.cells import Cells
from lime_model.scoring.queries import Query


class ShapeMismatch(LimeError, ValueError):
    """Users, bank and model do not fit each other, or k is no list length."""


def check_shapes(weights: Weights, users: Sequence[Query], shards: Sequence[Cells], k: int) -> None:
    """Refuse what cannot be scored.

    Args:
        weights: shared parameters, with the model's L, F and E.
        users: the users to score.
        shards: all candidates.
        k: list length.

    Raises:
        ShapeMismatch: k is below 1, widths differ, a factor is not finite, or a memory is not ascending rows
            of the bank.
    """
    if k < 1:
        raise ShapeMismatch(f"k is {k}; it must be at least 1")
    links, hidden = weights.raw_links.shape[0], weights.out.shape[0]
    model = (links, hidden, weights.dot_out_bias.shape[0])
    for bank in {tuple(cells.shape) for cells in shards} - {model}:
        raise ShapeMismatch(
            f"the candidate bank has (L, F, E) = {bank} and the model {model}; "
            "rebuild the bank with this bundle (jobs/build_candidate_bank.py)"
        )
    for number, user in enumerate(users):
        _check_user(number, user, model, sum(map(len, shards)))


def _check_user(number: int, user: Query, model: tuple[int, int, int], candidates: int) -> None:
    factors, own = user.factors, user.memory.rows
    found, wanted = (factors.g.shape, factors.e.shape), (model[:2], model[2:])
    if found != wanted:
        raise ShapeMismatch(
            f"the factors of user {number} are {found} and the model wants {wanted}; "
            "rebuild the link states with this bundle (jobs/build_link_states.py)"
        )
    if not (np.isfinite(factors.g).all() and np.isfinite(factors.e).all()):
        raise ShapeMismatch(f"the factors of user {number} hold NaN or infinity")
    if len(own) and (own[0] < 0 or own[-1] >= candidates or (np.diff(own) <= 0).any()):
        raise ShapeMismatch(f"the memory of user {number} must be ascending rows below {candidates}")
