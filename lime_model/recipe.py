"""How a LIME model is trained: the steps, rates and examples of its two kinds of training, and its recipe.

The text below each field is its description in docs/configure.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lime_model.config import ModelConfig, check_numbers


@dataclass(frozen=True)
class TrainConfig:
    """How to learn the next items of a history; days are days of event time."""

    steps: int = 300
    """The steps of the first phase, at least 1; it trains dot, bias and memory over all items with an id
    embedding."""
    batch: int = 128
    """The examples (a user and a cut) of a step of the first phase, at least 1."""
    learning_rate: float = 1e-3
    """The highest learning rate of the first phase, above 0."""
    memory_rate: float = 2e-2
    """The highest learning rate of the repeat memory, above 0; these few weights end far from their start."""
    id_decay: float = 0.01
    """The share, from 0 to below 1, of the way back to its start that each step moves an id embedding."""
    link_steps: int = 60
    """The steps of the second phase, at least 0; it trains links and head too, over sampled items."""
    link_batch: int = 32
    """The examples (a user and a cut) of a step of the second phase, at least 1."""
    link_rate: float = 5e-4
    """The highest learning rate of links and head in the second phase, above 0."""
    tower_share: float = 0.2
    """The share, at least 0, of `link_rate` (for the memory, of `memory_rate`) at which the second phase goes
    on training what the first one has trained."""
    candidates: int = 2048
    """The candidates of a step of the second phase, at least 1, its targets included; at least a quarter of
    them is drawn at random."""
    weight_decay: float = 0.01
    """The weight decay of AdamW, at least 0."""
    dropout: float = 0.5
    """The share of link states and pools that training drops, from 0 to below 1."""
    horizon_days: float = 28.0
    """The number of days after a cut in which the targets of an example lie, above 0."""
    cut_every_days: float = 7.0
    """The number of days between two cuts, above 0."""
    cut_half_life_days: float = 60.0
    """The age in days, above 0, at which a cut is drawn half as often as the newest one."""
    first_cut_days: float = 270.0
    """The number of days from the oldest cut to the cut-off, at least `horizon_days`."""
    min_events: int = 20
    """The fewest events before a cut, at least 1, that make a user an example of this cut."""
    max_events: int = 512
    """The number of a user's last events before a cut that an example holds, at least 1."""
    hide_share: float = 0.85
    """The share of a history's items, from 0 to below 1, that are hidden and become targets."""
    valid_share: float = 0.02
    """The share of users, from 0 to below 1, from whom no step learns; their losses judge the run."""
    patience: int = 6
    """The rows of the training curve without a gain in validation, at least 1, that end a phase of six rows
    or more."""
    seed: int = 7
    """The seed of all random numbers of the training."""

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "link_batch", "candidates", "min_events", "max_events", "patience")
        check_numbers(self, "train", counts, least=1)
        check_numbers(self, "train", ("link_steps", "weight_decay", "tower_share"), least=0)
        rates = ("learning_rate", "memory_rate", "link_rate")
        days = ("horizon_days", "cut_every_days", "cut_half_life_days", "first_cut_days")
        check_numbers(self, "train", (*rates, *days), above=0)
        check_numbers(self, "train", ("dropout", "hide_share", "valid_share", "id_decay"), least=0, below=1)
        if not self.first_cut_days >= self.horizon_days:
            raise ValueError(
                f"train.first_cut_days is {self.first_cut_days:g}; a cut is at least "
                f"the {self.horizon_days:g} days of train.horizon_days before the cut-off"
            )


@dataclass(frozen=True)
class LabelTraining:
    """How to learn labels: `epochs` over the windows of a log, fewer when validation stops improving."""

    epochs: float = 3.0
    """How often training goes over the windows of the log, above 0."""
    batch: int = 32
    """The windows of a step, at least 1."""
    targets: int = 32
    """The events of a window that are predicted, at least 1; they share the history before them."""
    learning_rate: float = 1e-3
    """The highest learning rate of all parameters but embeddings, above 0."""
    embedding_rate: float = 2e-2
    """The highest learning rate of embeddings, above 0; each item, feature and action occurs in few steps."""
    weight_decay: float = 0.01
    """The weight decay of AdamW, at least 0."""
    dropout: float = 0.2
    """The share of link states and pools that training drops, from 0 to below 1."""
    stride: int = 32
    """The events between two readings of LIME-XOR, at least 1."""
    validations: int = 6
    """The number of validations, at least 1, spread evenly over the run."""
    patience: int = 2
    """The validations in a row without a gain, at least 1, that end training."""
    valid_days: float = 14.0
    """The number of last days before the cut-off, above 0, whose events judge the run."""
    bf16: bool = False
    """Whether steps multiply in bf16, which is faster for LIME-XOR on a processor that has it."""
    seed: int = 7
    """The seed of all random numbers of the training."""

    def __post_init__(self) -> None:
        counts = ("batch", "targets", "stride", "validations", "patience")
        check_numbers(self, "labels", counts, least=1)
        check_numbers(self, "labels", ("weight_decay",), least=0)
        check_numbers(self, "labels", ("epochs", "learning_rate", "embedding_rate", "valid_days"), above=0)
        check_numbers(self, "labels", ("dropout",), least=0, below=1)


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
