"""What a LIME model is made of: sizes, variant and the columns it reads; and how it is trained.

The sizes are one frozen object, written as JSON into the bundle and read back by every job, so that training,
encoding and scoring cannot disagree about a shape. No module that this one imports loads torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Variant = Literal["lime-mha", "lime-xor"]
ScoreTerm = Literal["dot", "bias", "memory"]
Kind = Literal["category", "hash", "number", "list", "vector"]

DAY_US = 86_400_000_000  # microseconds of a day
MEMORY_FEATURES = 9  # lime_model/model/repeat_memory.py lists them


@dataclass(frozen=True)
class Column:
    """A column of item or user features and how a model reads it; see `lime_model/model/encoders.py`.

    Args:
        name: name of the column.
        kind: how its values become entries of an embedding table.
        size: for a hash the rows of its table, for a number its knots, for a list the values that count, and
            for a vector its length; a category has no size. 0 is the default of a number and a list.

    Raises:
        ValueError: the kind is unknown, or can't have this size.
    """

    name: str
    kind: Kind = "category"
    size: int = 0

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
    links: int = 8  # L
    width: int = 40  # D
    hidden: int = 16  # F, hidden units of the scoring head
    dot: int = 40  # E, width of the two-tower dot
    heads: int = 2  # heads of the MHA link attention; the link weights have one
    xor_blocks: int = 3
    max_events: int = 256  # N_max: how many of the last events LIME-XOR reads
    user_width: int = 16  # X, width of x_u
    memory_hidden: int = 16
    pool_days: tuple[float, ...] = (90.0, 21.0)  # decays of the pools; there is always a flat one as well
    memory_days: tuple[float, float] = (90.0, 21.0)  # decays of the repeat memory
    bias_days: int = 28  # window of the recent count in the nightly item bias
    event_types: tuple[str, ...] = ("purchase",)
    item_columns: tuple[Column, ...] = ()
    user_columns: tuple[Column, ...] = ()
    tasks: tuple[str, ...] = ()  # event types that are each a task; without any, one task of all events
    task_weights: tuple[float, ...] = ()  # weights of the tasks' logits in the score; without any, 1 each
    labelled: bool = False  # histories show the label of each event: an action is an event type and a label
    without: tuple[ScoreTerm, ...] = ()  # parts of the score that stay zero, for comparisons
    cutoff_ds: str = "1970-01-01"  # the model was trained on events before this day only

    def __post_init__(self) -> None:
        sizes = ("links", "width", "hidden", "dot", "heads", "xor_blocks", "max_events", "user_width")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1")
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


@dataclass(frozen=True)
class TrainConfig:
    """How to learn the next items of a history; days are days of event time."""

    steps: int = 300  # first phase: dot, bias and memory, over all items with an id embedding
    batch: int = 128
    learning_rate: float = 1e-3
    memory_rate: float = 2e-2  # high, as these few weights end far from their start
    id_decay: float = 0.01  # how far each step pulls the id embeddings back to their start
    link_steps: int = 60  # second phase: links and head too, over sampled items
    link_batch: int = 32
    link_rate: float = 5e-4
    tower_share: float = 0.2  # in the second phase, parameters of the first phase have this share of the rate
    candidates: int = 2048  # candidates of the second phase, positives included; at least a quarter is drawn
    weight_decay: float = 0.01
    dropout: float = 0.5  # dropout of link state and pools
    horizon_days: float = 28.0
    cut_every_days: float = 7.0
    cut_half_life_days: float = 60.0
    first_cut_days: float = 270.0  # days before the cut-off
    min_events: int = 20
    max_events: int = 512
    hide_share: float = 0.85  # share of a history's items that are hidden and become targets
    valid_share: float = 0.02  # share of the users whom no step learns from; their losses judge the run
    patience: int = 6  # rows of the curve without a gain in validation that end a phase of six rows or more
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("batch", "link_batch", "candidates", "min_events", "max_events", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "memory_rate", "link_rate", "horizon_days", "cut_every_days"):
            if not getattr(self, name) > 0:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be above 0")
        for name in ("dropout", "hide_share", "valid_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it is a share below 1")
        if not self.first_cut_days >= self.horizon_days:
            raise ValueError(
                f"train.first_cut_days is {self.first_cut_days:g}; a cut is at least "
                f"the {self.horizon_days:g} days of train.horizon_days before the cut-off"
            )


@dataclass(frozen=True)
class LabelTraining:
    """How to learn labels: `epochs` over the windows of a log, fewer when validation stops improving."""

    epochs: float = 3.0
    batch: int = 32  # windows
    targets: int = 32  # events of a window that are predicted; they share the history before them
    learning_rate: float = 1e-3
    embedding_rate: float = 2e-2  # rate of items, features and actions, each of which occurs in few steps
    weight_decay: float = 0.01
    dropout: float = 0.2  # dropout of link state and pools
    stride: int = 32  # events between two readings of LIME-XOR, see lime_model/train/prefixes.py
    validations: int = 6  # validations, spread evenly over the whole run
    patience: int = 2  # validations in a row without a gain that end training
    valid_days: float = 14.0  # the events of the last days before the cut-off judge the run
    bf16: bool = False  # products of a step in bf16: faster for LIME-XOR where the processor has it
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("batch", "targets", "stride", "validations", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"labels.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("epochs", "learning_rate", "embedding_rate", "valid_days"):
            if not getattr(self, name) > 0:
                raise ValueError(f"labels.{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"labels.dropout is {self.dropout}; it is a share below 1")


@dataclass(frozen=True)
class Recipe:
    """How one model is built and trained.

    Args:
        name: names the model in messages.
        config: sizes, columns and variant; its `cutoff_ds` is replaced by the cut-off of the training.
        train: how to learn the next items of a history.
        labels: how to learn the label of every event; None for a model of next items.
        min_buyers: users who must have taken an item for it to get an id embedding of its own.
        max_embedding_gib: limit of the memory that the embedding tables take in training, in GiB.
    """

    name: str
    config: ModelConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    labels: LabelTraining | None = None
    min_buyers: int = 8
    max_embedding_gib: float = 4.0
