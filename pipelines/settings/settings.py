"""Settings: one YAML file into one frozen, validated object.

An unknown key is an error that names the nearest known one. Paths are any Hadoop URI
(`file:`, `hdfs:`, `s3a:`, `abfs:`) or a local path.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from lime_model.config import Column, LabelTraining, ModelConfig, Recipe, TrainConfig
from lime_model.errors import LimeError
from lime_model.scoring import BackendName
from pipelines.settings.file import explain_problem, read_yaml, suggest
from pipelines.settings.ingest import ColumnType, IngestSettings
from pipelines.settings.names import check_name
from pipelines.settings.secrets import check_url, check_variable
from pipelines.settings.spark import SparkSettings

IdType = Literal["long", "string"]
HOLDS: dict[str, tuple[ColumnType, ...]] = {  # by kind of column, where not everything will do
    "number": ("double", "long", "boolean"),
    "list": ("array<string>",),
    "vector": ("array<double>",),
}
MOST_POLICIES = 63  # bits of a long, one for each in a bank


class SettingsError(LimeError):
    """The settings file is missing, unreadable or says something impossible."""


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IdTypes(Section):
    """Declared, never inferred: "0012" stays a string."""

    user_id: IdType = "long"
    item_id: IdType = "long"


def _seen(value: Any) -> Any:
    """A truth value is a number to Python, so it is refused here."""
    days = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not days and value not in ("none", "all"):
        raise ValueError("exclude_seen is none, all, or a number of days that must be at least 1")
    return value


def _no_number(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("a date is written as 2017-12-04; a number would be seconds since 1970")
    return value


def _no_url_secret(path: str) -> str:
    return check_url(path, "put the keys of the storage into spark.secrets")


Date = Annotated[dt.date, BeforeValidator(_no_number)]
Name = Annotated[str, AfterValidator(check_name)]
StoragePath = Annotated[str, Field(min_length=1), AfterValidator(_no_url_secret)]
Variable = Annotated[str, AfterValidator(check_variable)]


class Policy(Section):
    """Which candidates a user may get."""

    name: Name = "all"
    exclude_seen: Annotated[Literal["none", "all"] | int, BeforeValidator(_seen)] = "none"
    eligible: str = "true"  # SQL over item columns; null counts as false


def _name_columns(raw: Any) -> Any:
    """A column that is a name alone is a category."""
    if not isinstance(raw, dict):
        return raw
    sides = {side: raw[side] for side in ("item_columns", "user_columns") if isinstance(raw.get(side), list)}
    return raw | {
        side: [{"name": column} if isinstance(column, str) else column for column in columns]
        for side, columns in sides.items()
    }


class ModelSettings(Section):
    """One model to train; its name is its folder under `bundles`.

    With `labels` it learns the label of every event, without the next events that follow a history.
    """

    name: Name
    config: Annotated[ModelConfig, BeforeValidator(_name_columns)]
    train: TrainConfig = TrainConfig()
    labels: LabelTraining | None = None
    min_buyers: int = Field(default=8, ge=1)  # users an item needs for an id embedding of its own
    max_embedding_gib: float = Field(default=4.0, gt=0)  # of the embedding tables in training

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels is None and self.config.labelled:
            raise ValueError("labelled: true wants labels, how to learn them: labels: {} for the defaults")
        if self.labels is not None and self.config.tasks:
            raise ValueError("tasks are event types to come; a model with labels has one task, the label")
        return self

    @property
    def recipe(self) -> Recipe:
        """How to train the model, as training reads it."""
        return Recipe(
            self.name, self.config, self.train, self.labels, self.min_buyers, self.max_embedding_gib
        )


class NightSettings(Section):
    """What a night produces."""

    model: str
    k: int = Field(default=100, ge=1)
    policy: Policy = Policy()
    reuse: bool = True  # score only what changed since the last certified night; the lists are the same
    buckets: int = Field(default=16, ge=1)  # work units; fixed when the warehouse is made
    units_per_commit: int = Field(default=8, ge=1)
    backend: BackendName = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    certificate_users: int = Field(default=200, ge=1)
    # Of the bank's rows and of the users: left out with a reason. 0: the first damaged row fails the night.
    max_damaged_share: float = Field(default=0.0, ge=0.0, lt=1.0)

    @property
    def strict(self) -> bool:
        """Whether the first damaged row fails the night."""
        return self.max_damaged_share == 0


SoftCheck = Literal[
    "short_share",
    "cold_share",
    "top_share",
    "item_coverage",
    "served_share",
    "psi",
    "jaccard",
    "rank_biased_overlap",
]  # audits that tell a bad night by degree; those of what must hold always can't be overridden


class Override(Section):
    """An audit that does not stop one night, and why; the night's manifest keeps it."""

    night: Date
    check: SoftCheck
    reason: str = Field(min_length=10)


class AuditSettings(Section):
    """What a night may be like and still be published; see docs/operate.md."""

    max_short_share: float = Field(default=0.1, ge=0, le=1)  # of users with fewer than K items
    max_cold_share: float = Field(default=0.5, ge=0, le=1)  # of users without events
    max_top_share: float = Field(default=0.9, ge=0, le=1)  # of places, held by the most listed 1 % of items
    min_item_coverage: float = Field(default=0.001, ge=0, le=1)  # of eligible items that any list holds
    # Against the last published night: users with a list, and in each segment (cold, active, idle) of enough
    # users scores and lists.
    min_served_share: float = Field(default=0.9, ge=0)
    max_psi: float = Field(default=0.25, gt=0)
    min_jaccard: float = Field(default=0.3, ge=0, le=1)
    min_rank_biased_overlap: float = Field(default=0.3, ge=0, le=1)
    min_segment_users: int = Field(default=100, ge=1)
    overrides: list[Override] = []


class PromotionSettings(Section):
    """When a newly trained bundle takes over; see jobs/challenge_model.py."""

    horizon_days: int = Field(default=7, ge=1)  # before the night: kept from training, they judge
    min_events: int = Field(default=20, ge=1)  # history that a user needs to be counted
    margin: float = Field(default=0.0, ge=0)  # of recall@K (of labels: AUC) above the champion's


class UpkeepSettings(Section):
    """What jobs/tidy_tables.py leaves; see docs/operate.md."""

    keep_nights: int = Field(default=14, ge=1, le=36_500)  # before the newest: their staged rows stand by
    keep_days: int = Field(
        default=7, ge=1, le=36_500
    )  # tables can be read as they were, and nights taken back


def _no_password(url: str) -> str:
    return check_url(url, "name the environment variable that holds it in password_env")


URL_OPTIONS = {
    "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname",
}  # fmt: skip


def _reachable(url: str) -> str:
    """The value itself is in no message: it may hold what it should not."""
    parts = urlsplit(url)
    try:
        known = (
            parts.scheme in ("redis", "rediss") and parts.hostname and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        known = False
    if not known or not re.fullmatch(r"(/[0-9]{0,5})?", parts.path):
        raise ValueError(
            "the URL must be redis://HOST:PORT/0, or rediss://HOST:PORT/0 for TLS (with USER@ before the "
            "host where the store has users; letters such as @ / ? # in it as %40 %2F %3F %23)"
        )
    if parts.fragment or parse_qs(parts.query, keep_blank_values=True).keys() - URL_OPTIONS:
        raise ValueError(
            f"the URL may have the options {', '.join(sorted(URL_OPTIONS))} after its ?, and has another; a "
            "password belongs in an environment variable that password_env names"
        )
    return url


# Readable in one way before `:VERSION:`, and with no letter that means something to a scan or to a cluster.
PREFIX = r"(?:(?!\d{4}-\d\d-\d\d)[A-Za-z0-9_.-]+)(?::(?!\d{4}-\d\d-\d\d)[A-Za-z0-9_.-]+)*"


def _plain_prefix(prefix: str) -> str:
    if len(prefix) > 200 or not re.fullmatch(PREFIX, prefix, re.ASCII):
        raise ValueError(
            "the prefix must be letters, digits and _ . - in parts that a colon separates, none of them a "
            "date, 200 letters at most, such as lime or shop:lime; what lies under another one stays there"
        )
    return prefix


class RedisExport(Section):
    """A Redis or Valkey that serves lists, a single server or a cluster."""

    # redis://host:6379/0, rediss:// for TLS; of a cluster any server.
    url: Annotated[str, AfterValidator(_no_password), AfterValidator(_reachable)]
    password_env: Variable | None = None  # environment variable of the driver
    cluster: bool | None = None  # null: as the server says
    prefix: Annotated[str, AfterValidator(_plain_prefix)] = "lime"  # of every key
    keys_per_second: int = Field(default=20_000, ge=1)  # of the whole load
    ttl_days: int = Field(default=7, ge=1)  # a night that no other follows is forgotten after
    grace_seconds: float = Field(default=5.0, ge=0)  # the version before stays readable
    patience_seconds: float = Field(default=60.0, ge=0)  # how long a load waits for a failover to end


class ParquetExport(Section):
    """A folder of Parquet files."""

    path: StoragePath
    users_per_file: int = Field(default=100_000, ge=1)


class ExportSettings(Section):
    """Where published lists are served from; nowhere by default."""

    redis: RedisExport | None = None
    parquet: ParquetExport | None = None


def _check_columns(
    model: str, side: str, columns: Sequence[Column], types: Mapping[str, ColumnType], key: str
) -> None:
    """A model reads what is ingested, as something that its kind can hold."""
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
                f"{found}; a {column.kind} wants {' or '.join(fits)}"
            )


class Settings(Section):
    """Everything a job reads besides its command line."""

    warehouse: StoragePath
    drops: StoragePath
    bundles: StoragePath
    ids: IdTypes = IdTypes()
    ingest: IngestSettings = IngestSettings()
    models: list[ModelSettings] = []
    night: NightSettings
    audits: AuditSettings = AuditSettings()
    evaluate_policies: list[Policy] = [Policy()]
    promotion: PromotionSettings = PromotionSettings()
    export: ExportSettings = ExportSettings()
    upkeep: UpkeepSettings = UpkeepSettings()
    spark: SparkSettings = SparkSettings()

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        _check_names("models", [model.name for model in self.models])
        for model in self.models:
            _check_columns(
                model.name, "items", model.config.item_columns, self.ingest.items.columns, "item_id"
            )
            _check_columns(
                model.name, "users", model.config.user_columns, self.ingest.users.columns, "user_id"
            )
        if self.models:  # without any, a file is for ingest alone
            _check_model(self.models, self.night.model, "night.model: ")
        return self

    @model_validator(mode="after")
    def _check_policies(self) -> Self:
        _check_names("evaluate_policies", [policy.name for policy in self.evaluate_policies])
        if not 1 <= len(self.evaluate_policies) <= MOST_POLICIES:
            raise ValueError(
                f"evaluate_policies has {len(self.evaluate_policies)} policies; it takes 1 to {MOST_POLICIES}"
            )
        return self

    def model(self, name: str) -> ModelSettings:
        """The model settings called `name`.

        Raises:
            SettingsError: there is none.
        """
        try:
            return _check_model(self.models, name)
        except ValueError as error:
            raise SettingsError(str(error)) from None


def _check_model(models: Sequence[ModelSettings], name: str, where: str = "") -> ModelSettings:
    """The model of this name; a `ValueError` when there is none."""
    found = next((model for model in models if model.name == name), None)
    if found is None:
        names = [model.name for model in models]
        raise ValueError(f"{where}no model {name!r} in models: {names}; {suggest(name, names, 'model')}")
    return found


def _check_names(section: str, names: Sequence[str]) -> None:
    """Whatever the case of their letters: some storages do not tell folders apart by it."""
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
            f"{path} holds no settings: it wants keys and values; see conf/local.yaml for some"
        )
    try:
        return TypeAdapter(Settings).validate_python(_absolute(raw, Path(path).resolve().parent))
    except ValidationError as error:
        problems = [explain_problem(Settings, dict(problem)) for problem in error.errors()]
    # Outside of the except clause: pydantic's own error repeats every wrong value, which may be a secret.
    raise SettingsError("\n".join(f"{path}: {problem}" for problem in problems))


def _absolute(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Plain relative paths count from the settings file: a scheduler's working folder is anybody's guess."""
    paths = {key: raw[key] for key in ("warehouse", "drops", "bundles") if isinstance(raw.get(key), str)}
    local: dict[str, Any] = {
        key: str((folder / value).resolve()) for key, value in paths.items() if value and ":" not in value
    }
    if isinstance(export := raw.get("export"), dict) and isinstance(export.get("parquet"), dict):
        local |= {"export": export | {"parquet": _absolute_path(export["parquet"], folder)}}
    return {**raw, **local}


def _absolute_path(section: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = section.get("path")
    if isinstance(path, str) and path and ":" not in path:
        return section | {"path": str((folder / path).resolve())}
    return section
