"""What a LIME model is made of: sizes, variant and the columns it reads.

The sizes are one frozen object, written as JSON into the bundle and read back by every job, so that training,
encoding and scoring cannot disagree about a shape. No module that this one imports loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Variant = Literal["lime-mha", "lime-xor"]
ScoreTerm = Literal["dot", "bias", "memory"]
Kind = Literal["category", "hash", "number", "list", "vector"]

DAY_US = 86_400_000_000  # microseconds of a day
MEMORY_FEATURES = 9  # lime_model/model/repeat_memory.py lists them


def check_numbers(
    owner: object,
    section: str,
    names: Iterable[str],
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Check the range of numbers of the settings.

    Args:
        owner: the object whose attributes are checked.
        section: the section of the settings that the error names.
        names: the attributes.
        least: the smallest value that is allowed.
        above: a limit that each value must be above.
        below: a limit that each value must be below.

    Raises:
        ValueError: a value is not finite or out of its range; the message names the key, the value and the
            range.
    """
    limits = (("at least", least), ("above", above), ("below", below))
    allowed = " and ".join(
        ["finite", *(f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit))]
    )
    for name in names:
        value = getattr(owner, name)
        if not (least <= value and above < value < below):  # neither infinity nor NaN is between the defaults
            raise ValueError(f"{section}.{name} is {value}; it must be {allowed}")


@dataclass(frozen=True)
class Column:
    """A column of item or user features and how a model reads it; see `lime_model/model/encoders.py`.

    Raises:
        ValueError: the kind is unknown, or can't have this size.
    """

    name: str
    """The name of the column, as `ingest` declares it."""
    kind: Kind = "category"
    """How the values of the column are read (docs/train.md has a table of the kinds)."""
    size: int = 0
    """For a hash the number of embeddings, for a number its quantiles, for a list the values that count, and
    for a vector its length; 0 is the default of a number (16) and a list (8), and a category has no size."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"column {self.name}: kind is {self.kind!r}; use one of {list(get_args(Kind))}")
        least = {"category": 0, "hash": 1, "number": 0, "list": 0, "vector": 1}[self.kind]
        if self.size < least or (self.kind == "category" and self.size):
            raise ValueError(
                f"column {self.name}: size is {self.size}; a {self.kind} "
                + ("has none" if self.kind == "category" else f"wants at least {least}")
            )


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of one LIME model (letters as in docs/model.md).

    Neither lists nor labels got better with sizes above the defaults in `make bench-quality-full`; see
    benchmarks/results/quality-sizes.svg.

    Raises:
        ValueError: a size is not positive, `heads` do not divide `width`, or weights do not fit the tasks.
    """

    variant: Variant = "lime-mha"
    """How links read a history: `lime-mha` by softmax attention, `lime-xor` by HSTU blocks."""
    links: int = 8
    """The number of links L of a user, at least 1."""
    width: int = 40
    """The width D of the embeddings; it must be a multiple of `heads`."""
    hidden: int = 16
    """The number of hidden units F of the scoring head, at least 1."""
    dot: int = 40
    """The width E of the two-tower dot product, at least 1."""
    heads: int = 2
    """The number of heads of the attention of LIME-MHA, at least 1; the link weights have one head."""
    xor_blocks: int = 3
    """The number of blocks of LIME-XOR, at least 1."""
    max_events: int = 256
    """The number of last events that LIME-XOR reads, at least 1, and the events of a window of labels."""
    user_width: int = 16
    """The width X of the embedding of a user's own columns, at least 1."""
    memory_hidden: int = 16
    """The number of hidden units of the repeat memory, at least 1."""
    pool_days: tuple[float, ...] = (90.0, 21.0)
    """The days, above 0, after which an event weighs 1/e in each decayed pool of a history; there is always
    one pool more, in which all events weigh the same."""
    memory_days: tuple[float, float] = (90.0, 21.0)
    """The days, above 0, after which an event weighs 1/e in the two decayed counts of the repeat memory."""
    bias_days: int = 28
    """The number of days before the night, at least 1, whose events count for the item bias."""
    event_types: tuple[str, ...] = ("purchase",)
    """The event types that the model can tell apart; any other type is unknown to it."""
    item_columns: tuple[Column, ...] = ()
    """The columns of items that the model reads; a name alone is a column of the kind `category`."""
    user_columns: tuple[Column, ...] = ()
    """The columns of users that the model reads; a name alone is a column of the kind `category`."""
    tasks: tuple[str, ...] = ()
    """The event types that are each a task of their own; without any, a single task covers all events."""
    task_weights: tuple[float, ...] = ()
    """The weights that the logits of `tasks` have in the score, in their order; without any, all weigh 1."""
    labelled: bool = False
    """Whether histories show the label of each event: an action is then an event type and a label."""
    without: tuple[ScoreTerm, ...] = ()
    """The parts of the score that stay zero, for comparisons."""
    cutoff_ds: str = "1970-01-01"
    """The day (YYYY-MM-DD) before which all events of the training lie; training itself sets it."""

    def __post_init__(self) -> None:
        sizes = ("links", "width", "hidden", "dot", "heads", "xor_blocks", "max_events", "user_width")
        check_numbers(self, "model", (*sizes, "memory_hidden", "bias_days"), least=1)
        for name in ("pool_days", "memory_days"):
            days = getattr(self, name)
            if not all(math.isfinite(day) and day > 0 for day in days):
                raise ValueError(
                    f"model.{name} is {list(days)}; each number of days must be finite and above 0"
                )
        if self.width % self.heads:
            raise ValueError(
                f"model.width {self.width} is not a multiple of model.heads {self.heads}; "
                "choose heads that divide the width"
            )
        if self.variant not in ("lime-mha", "lime-xor"):
            raise ValueError(f"model.variant is {self.variant!r}; use 'lime-mha' or 'lime-xor'")
        for part in self.without:
            if part not in get_args(ScoreTerm):
                raise ValueError(f"model.without names {part!r}; use some of {list(get_args(ScoreTerm))}")
        for names in ([column.name for column in side] for side in (self.item_columns, self.user_columns)):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"model columns name {sorted(twice)} more than once")
        self._check_tasks()

    def _check_tasks(self) -> None:
        for name in self.tasks:
            if name not in self.event_types or self.tasks.count(name) > 1:
                raise ValueError(
                    f"model.tasks names {name!r}; use each of {list(self.event_types)} at most once"
                )
        if self.task_weights and len(self.task_weights) != len(self.tasks):
            raise ValueError(
                f"model.task_weights has {len(self.task_weights)} weights for {len(self.tasks)} tasks"
            )
        if not all(math.isfinite(weight) for weight in self.mix) or not any(self.mix):
            raise ValueError(f"model.task_weights is {list(self.mix)}; weights are finite and one is not 0")

    @property
    def mix(self) -> tuple[float, ...]:
        """The weight of every task's logit in the score `[O]`, for O tasks."""
        return self.task_weights or (1.0,) * max(1, len(self.tasks))

    @property
    def pools(self) -> int:
        """The number of pools J: the decayed ones and the flat mean."""
        return len(self.pool_days) + 1

    @property
    def actions(self) -> int:
        """The number of action codes: 0 for unknown, then one per event type, or three with labels shown."""
        return 1 + len(self.event_types) * (3 if self.labelled else 1)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ModelConfig:
        """Return the config that `to_json` wrote; lists become tuples."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        for side in ("item_columns", "user_columns"):
            fields[side] = tuple(Column(**column) for column in fields[side])
        return cls(**fields)
