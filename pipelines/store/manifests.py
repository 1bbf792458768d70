"""Define the manifests of jobs: what each job of a run read, wrote and counted, and how long it took.

Each job has one frozen class for its row of `runs`. A manifest is stored as JSON. Rows that earlier versions
of this project wrote still load: fields that they did not have are optional here, and fields that no longer
exist are ignored.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from pipelines.steps import Job

EXPORTED_NOWHERE = "nowhere: the settings have no export"
Versions = dict[str, int]  # Delta version by table; -1 for a table that did not exist


class ManifestSection(BaseModel):
    """The base class of manifests and of their sections."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), ser_json_inf_nan="constants"
    )


class Manifest(ManifestSection):
    """The manifest of one job of one run."""

    job: ClassVar[Job]

    seconds: float = 0.0  # how long the job took
    reused: bool = False  # whether this run had done the job before and did nothing now; not stored

    def to_json(self) -> str:
        """Return the text that `runs` holds."""
        return self.model_dump_json(exclude={"reused"}, exclude_none=True)

    def to_report(self) -> dict[str, Any]:
        """Return plain values, as a job prints them."""
        hidden = set() if self.reused else {"reused"}
        return self.model_dump(mode="json", exclude=hidden, exclude_none=True)


class RowCounts(ManifestSection):
    """Counts of the delivered rows by what became of them; the other counts add up to `delivered`."""

    delivered: int = 0
    loaded: int = 0
    duplicates: int = 0
    quarantined: int = 0
    filtered: int = 0


class SourceReport(ManifestSection):
    """The result of loading the drops of one source."""

    days: tuple[str, str]  # the first and the last day
    rows: RowCounts = RowCounts()
    rejected: dict[str, int] = {}  # rows by reason
    extra_columns: list[str] = []
    missing_columns: list[str] = []
    ignored_files: list[str] = []
    changed: bool | None = None  # for items and users only: whether the table has a new version
    version: int | None = None  # for events only, as all below: the version that holds the rows
    inserted: int | None = None
    updated: int | None = None
    deleted: int | None = None
    superseded: int | None = None  # rows of these drops that a later drop delivers as well


class IngestManifest(Manifest):
    """The drops that were loaded, and the model and versions that the run's later jobs read."""

    job = Job.INGEST_EVENTS

    items: SourceReport | None = None
    users: SourceReport | None = None
    events: SourceReport | None = None
    model: str | None = None  # the model of the run's night; None for a load that belongs to no night
    model_version: str | None = None  # the night's champion; None if there is none yet
    versions: Versions = {}


class BankManifest(Manifest):
    """The candidate bank and the item bias of a night."""

    job = Job.BUILD_CANDIDATE_BANK

    model: str
    model_version: str
    versions: Versions
    candidates: int = 0  # the number of rows of the corpus
    base: Versions = {}  # the version of the bank that this build started from
    encoded: int = 0  # the number of rows that were computed
    changed: int | None = None  # of the encoded items, those that some policy may recommend
    kept: int = 0
    removed: int = 0
    damaged: int = 0
    eligible_where: list[str] = []  # the rule of each policy, in the order of the eligibility bits
    eligible: dict[str, int] = {}  # the number of eligible items by policy


class StatesManifest(Manifest):
    """Link states and repeat memories of a night."""

    job = Job.BUILD_LINK_STATES

    model: str
    model_version: str
    versions: Versions
    buckets: int | None = None
    code: str | None = None  # names the code that computed the rows
    tables: dict[str, str] = {}  # the fingerprint of each table's version
    base: Versions = {}
    plan_reason: str = Field("", validation_alias=AliasChoices("plan_reason", "plan"))
    patched: int | None = None  # rows changed in place since both tables were last rewritten completely
    users: int
    cold_users: int = 0
    events: int
    recomputed: int = 0
    merged: int = 0
    kept: int = 0
    removed: int = 0
    damaged: int = 0


class BaseRun(ManifestSection):
    """The run that an incremental night starts from."""

    run_id: str
    ds: str
    anchors: list[str]  # the newest runs that scored some of its users in full
    held: list[str]  # runs whose item biases are stored with this run's candidates, in this order

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, raw: Any) -> Any:
        """Read the four values also from a list, as earlier versions of this project stored them."""
        return dict(zip(cls.model_fields, raw, strict=True)) if isinstance(raw, list | tuple) else raw


class EntryRules(ManifestSection):
    """The values that two nights must have in common for one to start from the other's kept entries."""

    model_version: str
    k: int
    entries: int  # the number of entries that are kept of each list
    policy: dict[str, Any]
    buckets: int
    code: str  # names the code that scores


class ScoringPlanManifest(Manifest):
    """The plan of a run's scoring, which its first attempt fixes."""

    job = Job.SCORING_PLAN

    buckets: int
    units_per_commit: int
    settings: list[EntryRules]  # one for each policy
    why: str
    entries: EntryRules | None = None  # the rules of the entries kept for later nights; None: none are kept
    base: BaseRun | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_empty(cls, raw: Any) -> Any:
        """Read an empty object as no entries, as earlier versions of this project stored it."""
        return {**raw, "entries": None} if isinstance(raw, dict) and raw.get("entries") == {} else raw


class PolicyReport(ManifestSection):
    """The result of scoring for one policy; the seconds and the rate are those of all policies together."""

    plan_reason: str = Field("", validation_alias=AliasChoices("plan_reason", "plan"))
    units: int = 0
    commits: int = 1
    commits_reused: int = 0  # commits that an earlier attempt had staged
    seconds: float = 0.0
    pairs_per_second: float = 0.0
    users: int = 0
    pairs: int = 0
    pairs_avoided: int = 0
    users_with_shortfall: int = 0
    users_left_out: int = 0
    users_taken_over: int | None = None  # users whose lists were reused; None in rows of earlier versions
    pairs_taken_over: int = 0


class EntriesReport(ManifestSection):
    """The facts about a run's kept entries that later nights need."""

    rules: EntryRules = Field(validation_alias=AliasChoices("rules", "of"))
    anchors: list[str]  # runs that scored some of the users in full
    items_left_out: int
    changed: int = 0  # candidates that changed since the run that this one started from


class ForecastComparison(ManifestSection):
    """A forecast of the scoring time, compared with the actual time."""

    predicted_seconds: float
    actual_seconds: float
    share_of_night: float  # the share of the commits that this attempt scored, of 1
    cost: float | None = None
    cost_per_million_pairs: float | None = None


class BackendReport(ManifestSection):
    """The backend and the device that scored, and why they were chosen."""

    backend: str
    device: str
    why: str


class ScoreManifest(Manifest):
    """The staged lists of a run."""

    job = Job.SCORE_CANDIDATES

    model: str
    model_version: str
    k: int = 0
    backend: BackendReport | None = None
    items_left_out: int = 0
    policies: dict[str, PolicyReport] = {}
    entries: EntriesReport | None = None
    forecast: ForecastComparison | None = None
    versions: Versions


class CertificateManifest(Manifest):
    """The certificate of exactness of a run's lists."""

    job = Job.VERIFY_NIGHT

    users: int = 0
    users_left_out: int = 0
    strata: dict[str, int] = {}
    candidates: int = 0
    worst_relative_error: float = 0.0
    tolerance: float = 0.0
    passed: bool


class FullComparisonManifest(Manifest):
    """A comparison of all lists of a run with those of a full night, which found no difference."""

    job = Job.VERIFY_FULL

    users: int
    plan_reason: str = Field("", validation_alias=AliasChoices("plan_reason", "plan"))
    pairs: int
    pairs_of_full_night: int
    seconds_of_full_night: float
    passed: bool


class DisprovedManifest(Manifest):
    """A comparison of all lists of a run with those of a full night, which found differences."""

    job = Job.DISPROVED

    users: int  # the number of users whose lists differ
    full_run: str = Field(default="", validation_alias=AliasChoices("full_run", "whole_run"))


class CheckReport(ManifestSection):
    """The outcome of one audit."""

    name: str
    value: float
    limit: float
    upper: bool = True
    segment: str = "all"
    holds: bool


class SegmentReport(ManifestSection):
    """The users of a segment: `cold` without events, `active` in the last week, or else `idle`."""

    users: int
    users_with_shortfall: int


class AuditManifest(Manifest):
    """The audits of a run."""

    job = Job.AUDIT_RECOMMENDATIONS

    compared_with: str | None = None  # the earlier published night that the lists were compared with
    checks: list[CheckReport]
    overridden: dict[str, str] = {}  # the reason by the name of the check
    segments: dict[str, SegmentReport] = {}  # empty in rows of earlier versions


class FailedAuditManifest(AuditManifest):
    """The audits of a run that must not be published."""

    job = Job.FAILED_AUDIT


class PublishManifest(Manifest):
    """A published night; the metadata of its commit holds the same JSON."""

    job = Job.PUBLISH_RECOMMENDATIONS

    run_id: str
    run_key: str = ""
    policy: str = ""
    model_version: str = ""
    versions: Versions = {}
    scoring: PolicyReport | None = None
    items_left_out: int = 0
    backend: BackendReport | None = None
    certificate: CertificateManifest | None = None
    audits: AuditManifest | None = None
    forecast: ForecastComparison | None = None


class ExportManifest(Manifest):
    """The export of a night's lists; each exporter adds a section under its own name."""

    model_config = ConfigDict(extra="allow")

    job = Job.EXPORT_RECOMMENDATIONS

    run_id: str | None = None
    versions: Versions = {}
    exported: str | None = None  # a note, present only if the settings name no export


class ForecastManifest(Manifest):
    """The forecast of the time and the memory that the scoring of a night will take."""

    job = Job.PLAN_NIGHT

    plan_reason: str = Field("", validation_alias=AliasChoices("plan_reason", "plan"))
    users: int
    in_full: int
    candidates: int
    changed: int
    each: float
    taken_over: int
    pairs: int
    pairs_avoided: int
    bank_bytes: int
    state_bytes: int
    worker_bytes: int
    tasks: int
    commits: int
    seconds_of_commit: float
    backend: BackendReport
    pairs_per_second: int
    users_per_second: int
    taken_over_per_second: int
    predicted_seconds: float
    price_per_hour: float | None = None
    predicted_cost: float | None = None


class TrainManifest(Manifest):
    """A trained bundle with its metrics."""

    model_config = ConfigDict(extra="allow")

    job = Job.TRAIN_MODEL

    model_version: str
    promoted: bool | None = None  # whether the training changed the champion


class EvaluationManifest(Manifest):
    """Offline metrics of models and baselines; a row for each, under each policy."""

    job = Job.EVALUATE_MODEL

    night: str
    horizon_days: int
    min_events: int
    k: int
    rows: list[dict[str, Any]]


class ChallengeManifest(Manifest):
    """A challenger, its comparison with the champion, and the decision."""

    job = Job.CHALLENGE_MODEL

    model: str
    night: str
    challenger: str
    champion: str | None = None
    promoted: bool
    why: str
    rows: list[dict[str, Any]] | None = None


class RollbackManifest(Manifest):
    """A night whose published lists were taken back, or put back."""

    job = Job.ROLL_BACK

    night: str
    run_id: str | None = None  # the run whose lists are in force now; None: the night is withdrawn
    action: Literal["publish", "take back", "put back"] | None = None
    instead_of: str | None = None  # the run whose lists were in force before
    reason: str = ""
    by: str | None = None  # the id of the run that did this
    now: str | None = None  # a sentence that says what happened
    versions: Versions

    def tag(self) -> dict[str, Any]:
        """Return the fields that the metadata of the commit holds."""
        return self.model_dump(include={"night", "run_id", "action", "instead_of", "reason", "by"})


class PinManifest(Manifest):
    """A pin, which keeps a published night readable, or the release of a pin."""

    job = Job.PIN_NIGHT

    run_id: str | None = None
    versions: Versions
    reason: str
    released: bool


class TidyManifest(Manifest):
    """The tables that upkeep compacted, and what it dropped and removed."""

    job = Job.TIDY_TABLES

    staged_from: str  # the oldest night whose staged rows are kept
    pinned: list[str] = []  # ids of the pinned runs
    files_compacted: dict[str, int] = {}
    staged_runs_dropped: dict[str, int] = {}
    evaluations_dropped: list[str] = []
    files_removed: dict[str, int] = {}


class ForgetManifest(Manifest):
    """A person who was removed from every table and export; the id itself is not kept."""

    model_config = ConfigDict(extra="allow")

    job = Job.FORGET_USER

    reason: str = ""
    rows_removed: dict[str, int] = {}
    rows_left_in_files: int = 0
    ids_in_logs: int = 0
    purged: Versions  # the oldest version of each table that can still be read
