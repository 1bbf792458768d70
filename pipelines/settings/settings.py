"""Read the settings from one YAML file into one frozen, validated object.

An unknown key is an error that names the nearest known one. Paths are any Hadoop URI (`file:`, `hdfs:`,
`s3a:`, `abfs:`) or a local path.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from pipelines.settings.base import Section, SettingsError, StoragePath
from pipelines.settings.export import ExportSettings
from pipelines.settings.file import explain_problem, read_yaml, suggest
from pipelines.settings.ingest import IngestSettings
from pipelines.settings.models import ModelSettings, check_columns, find_model
from pipelines.settings.night import (
    AuditSettings,
    NightSettings,
    Policy,
    PromotionSettings,
    ReportSettings,
    UpkeepSettings,
)
from pipelines.settings.spark import SparkSettings

IdType = Literal["long", "string"]
MOST_POLICIES = 63  # bits of a long; a bank has one bit for each policy


class IdTypes(Section):
    """The types of ids; they are declared and never inferred, so that "0012" stays a string."""

    user_id: IdType = "long"
    """The type of the ids of users."""
    item_id: IdType = "long"
    """The type of the ids of items."""


class Settings(Section):
    """Everything that a job reads besides its command line."""

    warehouse: StoragePath
    """The folder of the Delta tables: a local path or any Hadoop URI."""
    drops: StoragePath
    """The folder of the drops `SOURCE/ds=YYYY-MM-DD/`: a local path or any Hadoop URI."""
    bundles: StoragePath
    """The folder of the trained models: a local path or any Hadoop URI."""
    ids: IdTypes = IdTypes()
    """The types of ids."""
    ingest: IngestSettings = IngestSettings()
    """How drops are read."""
    models: list[ModelSettings] = Field(default_factory=list)
    """The models to train; with none, the file is for ingest alone."""
    night: NightSettings
    """What a night produces."""
    audits: AuditSettings = AuditSettings()
    """The limits within which a night may be published."""
    evaluate_policies: list[Policy] = Field(default_factory=lambda: [Policy()])
    """The policies that an evaluation compares, 1 to 63 of them."""
    promotion: PromotionSettings = PromotionSettings()
    """When a newly trained bundle takes over."""
    export: ExportSettings = ExportSettings()
    """Where published lists are exported to."""
    report: ReportSettings = ReportSettings()
    """What the page of a night shows."""
    upkeep: UpkeepSettings = UpkeepSettings()
    """What upkeep keeps."""
    spark: SparkSettings = SparkSettings()
    """How the Spark session is configured."""

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        _check_names("models", [model.name for model in self.models])
        for model in self.models:
            check_columns(model, self.ingest)
        if self.models:
            find_model(self.models, self.night.model, "night.model: ")
        return self

    @model_validator(mode="after")
    def _check_policies(self) -> Self:
        _check_names("evaluate_policies", [policy.name for policy in self.evaluate_policies])
        if not 1 <= len(self.evaluate_policies) <= MOST_POLICIES:
            raise ValueError(
                f"evaluate_policies has {len(self.evaluate_policies)} policies; it takes 1 to {MOST_POLICIES}"
            )
        return self

    @model_validator(mode="after")
    def _check_item_name(self) -> Self:
        known = self.ingest.items.columns
        for column in self.report.item_name:
            if column not in known:
                raise ValueError(
                    f"report.item_name names {column}, which ingest.items.columns does not have; "
                    + suggest(column, known, "column")
                )
        return self

    def model(self, name: str) -> ModelSettings:
        """Return the settings of the model called `name`.

        Raises:
            SettingsError: no model has this name.
        """
        try:
            return find_model(self.models, name)
        except ValueError as error:
            raise SettingsError(str(error)) from None


def _check_names(section: str, names: Sequence[str]) -> None:
    """Refuse names that differ only in case, as some storages would take their folders for one."""
    small = [name.lower() for name in names]
    if twice := sorted({name for name in names if small.count(name.lower()) > 1}):
        raise ValueError(f"{section} have the same name: {twice}")


def load_settings(path: str | Path) -> Settings:
    """Read and validate a settings file.

    Raises:
        SettingsError: one line per problem, each naming the key and, for an unknown key,
            the nearest known one of its section.
    """
    try:
        raw = read_yaml(path)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if not isinstance(raw, dict):
        raise SettingsError(
            f"{path} holds no settings: it needs keys and values; write one with lime init DROPS"
        )
    try:
        return TypeAdapter(Settings).validate_python(_resolve_paths(raw, Path(path).resolve().parent))
    except ValidationError as error:
        problems = [explain_problem(Settings, dict(problem)) for problem in error.errors()]
    # This is outside the except clause: pydantic's own error repeats every wrong value, maybe a secret.
    raise SettingsError("\n".join(f"{path}: {problem}" for problem in problems))


def _resolve_paths(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve plain relative paths against the settings file, as a scheduler's working folder is unknown."""
    paths = {key: raw[key] for key in ("warehouse", "drops", "bundles") if isinstance(raw.get(key), str)}
    local: dict[str, Any] = {
        key: str((folder / value).resolve()) for key, value in paths.items() if _is_local(value)
    }
    if isinstance(export := raw.get("export"), dict):
        local |= {"export": {name: _resolve_path(section, folder) for name, section in export.items()}}
    return {**raw, **local}


def _resolve_path(section: Any, folder: Path) -> Any:
    path = section.get("path") if isinstance(section, dict) else None
    if isinstance(path, str) and _is_local(path):
        return section | {"path": str((folder / path).resolve())}
    return section


def _is_local(path: str) -> bool:
    """Whether a text is a plain path; texts that no path may hold are refused later, in a sentence."""
    return bool(path) and ":" not in path and path.isprintable()
