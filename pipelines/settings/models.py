"""The `models` section of the settings: which models are trained, and from which columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from lime_model.config import Column, ModelConfig
from lime_model.recipe import LabelTraining, Recipe, TrainConfig
from pipelines.settings.base import Name, Section
from pipelines.settings.file import suggest
from pipelines.settings.ingest import ColumnType, IngestSettings

# The types that a kind of column can be read from; a kind that is missing here reads every type.
HOLDS: dict[str, tuple[ColumnType, ...]] = {
    "number": ("double", "long", "boolean"),
    "list": ("array<string>",),
    "vector": ("array<double>",),
}


def _name_columns(raw: Any) -> Any:
    """Turn a column that is given by its name alone into a column of the kind `category`."""
    if not isinstance(raw, dict):
        return raw
    sides = {side: raw[side] for side in ("item_columns", "user_columns") if isinstance(raw.get(side), list)}
    return raw | {
        side: [{"name": column} if isinstance(column, str) else column for column in columns]
        for side, columns in sides.items()
    }


class ModelSettings(Section):
    """One model to train; its name is its folder under `bundles`.

    With `labels` the model learns the label of every event; without it, the events that follow a history.
    """

    name: Name
    """The name of the model: 1 to 64 letters, digits and `_ . -`, the first one a letter or digit."""
    config: Annotated[ModelConfig, BeforeValidator(_name_columns)]
    """The sizes of the model and the columns that it reads."""
    train: TrainConfig = TrainConfig()
    """How the model learns the events that follow a history."""
    labels: LabelTraining | None = None
    """How the model learns the label of every event; null: it learns the events that follow a history."""
    min_buyers: int = Field(default=8, ge=1)
    """The fewest users who must have taken an item for it to get an id embedding of its own."""
    max_embedding_gib: float = Field(default=4.0, gt=0)
    """The highest memory in GiB that the embedding tables may take in training."""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels is None and self.config.labelled:
            raise ValueError("labelled: true needs the section labels; labels: {} has the defaults")
        if self.labels is not None and self.config.tasks:
            raise ValueError("tasks are event types to come; a model with labels has one task, the label")
        return self

    @property
    def recipe(self) -> Recipe:
        """How to train the model, in the form that training reads."""
        return Recipe(
            self.name, self.config, self.train, self.labels, self.min_buyers, self.max_embedding_gib
        )


def check_columns(model: ModelSettings, ingest: IngestSettings) -> None:
    """Check that ingest delivers every column that a model reads, with a type that its kind can hold.

    Raises:
        ValueError: a column is missing from `ingest`, or its type does not fit.
    """
    _check_side(model.name, "items", model.config.item_columns, ingest.items.columns)
    _check_side(model.name, "users", model.config.user_columns, ingest.users.columns)


def _check_side(model: str, side: str, columns: Sequence[Column], types: Mapping[str, ColumnType]) -> None:
    key = {"items": "item_id", "users": "user_id"}[side]
    for column in columns:
        found = types.get(column.name, "string" if column.name == key else None)
        if found is None:
            raise ValueError(
                f"model {model} reads the column {column.name}, which ingest.{side}.columns does not have; "
                + suggest(column.name, types, "column")
            )
        fits = HOLDS.get(column.kind)
        if fits and found not in fits:
            raise ValueError(
                f"model {model} reads {column.name} as a {column.kind}, and ingest.{side}.columns says "
                f"{found}; a {column.kind} needs {' or '.join(fits)}"
            )


def find_model(models: Sequence[ModelSettings], name: str, where: str = "") -> ModelSettings:
    """Find the model of a name.

    Args:
        models: the models of the settings.
        name: the wanted model.
        where: the start of the error message, such as the key that names the model.

    Raises:
        ValueError: no model has this name.
    """
    found = next((model for model in models if model.name == name), None)
    if found is None:
        names = [model.name for model in models]
        raise ValueError(f"{where}no model {name!r} in models: {names}; {suggest(name, names, 'model')}")
    return found
