"""Small warehouses without Spark: Delta tables with the columns of `pipelines/schemas.py`."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from deltalake import CommitProperties, write_deltalake

from pipelines.schemas import TABLES
from pipelines.settings.settings import Settings, load_settings
from pipelines.store.manifests import (
    AuditManifest,
    BankManifest,
    BaseRun,
    CertificateManifest,
    CheckReport,
    DisprovedManifest,
    EntryRules,
    FailedAuditManifest,
    ForecastComparison,
    IngestManifest,
    Manifest,
    PolicyReport,
    PublishManifest,
    RollbackManifest,
    ScoreManifest,
    ScoringPlanManifest,
    SegmentReport,
    StatesManifest,
)
from synthetic import shop

FIRST_EPOCH = 1
ARROW = {
    "string": pa.string(), "long": pa.int64(), "int": pa.int32(), "double": pa.float64(),
    "float": pa.float32(), "date": pa.date32(), "timestamp": pa.timestamp("us", "UTC"),
    "binary": pa.binary(), "boolean": pa.bool_(),
}  # fmt: skip


def arrow_type(kind: str, ids: str) -> pa.DataType:
    """Return the Arrow type of a column's SQL type."""
    kind = kind.format(user=ids, item=ids)
    if kind.startswith("array<struct<"):
        return pa.list_(pa.struct([("item_id", ARROW[ids]), ("score", pa.float32())]))
    if kind.startswith("array<"):
        return pa.list_(ARROW[kind.removeprefix("array<").removesuffix(">")])
    return ARROW[kind]


class SmallWarehouse:
    """A warehouse under a folder, to which tests add rows and runs."""

    def __init__(self, root: Path, ids: str = "string") -> None:
        raw = shop.settings(root, policy={"name": "all"})
        raw["ids"] = {"user_id": ids, "item_id": ids}
        raw["ingest"]["items"]["columns"]["name"] = "string"
        self.path = root / "settings.yaml"
        self.path.write_text(yaml.safe_dump(raw))
        self.settings: Settings = load_settings(self.path)
        self.root, self.ids = root, ids

    def add(self, table: str, rows: list[dict[str, Any]], tag: str | None = None, **more: Any) -> None:
        """Append rows to a table; the columns that a row does not name are null."""
        columns = TABLES[table].columns
        schema = pa.schema([(name, arrow_type(kind, self.ids)) for name, kind in columns.items()])
        data = pa.Table.from_pylist([dict.fromkeys(columns) | row for row in rows], schema)
        folder = self.root / ("bundles" if table == "champions" else "warehouse")
        how = CommitProperties(custom_metadata={"userMetadata": tag}) if tag else None
        parts = list(TABLES[table].partitions)
        options: dict[str, Any] = {"mode": "append", **more}
        write_deltalake(str(folder / table), data, partition_by=parts, commit_properties=how, **options)

    def add_items(self, names: dict[str, str], **columns: dict[str, str]) -> None:
        """Write the table of items with a column `name`, and other columns of text by item."""
        since = dt.date(2024, 1, 1)
        texts = {"name": names, **columns}
        rows = [
            {"item_id": i, "_valid_from": since, **{column: by.get(i) for column, by in texts.items()}}
            for i in {item for by in texts.values() for item in by}
        ]
        schema = pa.schema(
            [
                ("item_id", ARROW[self.ids]), ("_valid_from", pa.date32()), ("_valid_to", pa.date32()),
                *((column, pa.string()) for column in texts),
            ]
        )  # fmt: skip
        write_deltalake(str(self.root / "warehouse" / "items"), pa.Table.from_pylist(rows, schema))

    def record(self, night: str, run_id: str, *manifests: Manifest) -> None:
        """Add manifests of a run to `runs`."""
        rows = [
            {"run_id": run_id, "ds": dt.date.fromisoformat(night), "job": str(each.job),
             "seconds": each.seconds, "manifest": each.to_json()}
            for each in manifests
        ]  # fmt: skip
        self.add("runs", rows)

    def lease(self, night: str, epoch: int = FIRST_EPOCH, key: str = "nightly") -> str:
        """Give the night to a run; return the id of the run."""
        row = {"ds": dt.date.fromisoformat(night), "epoch": epoch, "run_key": key, "holder": "host"}
        self.add("leases", [row])
        return f"{night}.{epoch}"

    def score(self, night: str, epoch: int = FIRST_EPOCH, base: str | None = None) -> str:
        """Record a run that has scored its lists; return its id."""
        run_id = self.lease(night, epoch)
        self.record(night, run_id, *scored_manifests(base))
        return run_id

    def publish(
        self, night: str, lists: dict[str, list[str]], epoch: int = FIRST_EPOCH, **options: Any
    ) -> str:
        """Record a run that has published lists; `options` are `base`, `checks` and `compared_with`."""
        run_id = self.score(night, epoch, options.get("base"))
        done = certificate()
        audits = AuditManifest(
            checks=options.get("checks") or checks(), segments=SEGMENTS, seconds=5.25,
            compared_with=options.get("compared_with"),
        )  # fmt: skip
        scoring = POLICY
        published = PublishManifest(
            run_id=run_id, run_key="nightly", policy="all", model_version="v1", scoring=scoring,
            certificate=done, audits=audits, seconds=2.5,
        )  # fmt: skip
        self.record(night, run_id, done, audits, published)
        self.add("recommendations", self.rows(night, run_id, lists), tag=published.to_json())
        return run_id

    def rows(self, night: str, run_id: str, lists: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return rows of `recommendations`."""
        return [
            {"ds": dt.date.fromisoformat(night), "user_id": user, "run_id": run_id, "model_version": "v1",
             "candidates": [{"item_id": item, "score": 1.0 - i / 100} for i, item in enumerate(items)],
             "shortfall": 0}
            for user, items in lists.items()
        ]  # fmt: skip

    def fail_audits(self, night: str, lists: dict[str, list[str]], found: list[CheckReport]) -> str:
        """Record a run that has staged lists and failed its audits."""
        run_id = self.score(night)
        self.record(night, run_id, certificate(), FailedAuditManifest(checks=found))
        rows = [{**row, "policy": "all"} for row in self.rows(night, run_id, lists)]
        staged = [{k: v for k, v in row.items() if k in TABLES["staging"].columns} for row in rows]
        self.add("staging", staged)
        return run_id

    def disprove(self, night: str, run_id: str) -> None:
        """Record a full comparison that found differences."""
        self.record(night, run_id, DisprovedManifest(users=3, full_run="full"))

    def take_back(self, night: str, run_id: str, reason: str) -> None:
        """Withdraw a night."""
        by = self.lease(night, epoch=2, key="undo")
        done = RollbackManifest(
            night=night, run_id=None, action="take back", instead_of=run_id, reason=reason, by=by,
            versions={}, now=f"night {night}: run {run_id} was taken back and the night is withdrawn",
        )  # fmt: skip
        self.record(night, by, done)
        where = f"ds = '{night}'"
        self.add("recommendations", [], tag=json.dumps(done.tag()), mode="overwrite", predicate=where)

    def buy(self, user: str, item: str, when: str) -> None:
        """Add an event to the log."""
        stamp = dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC)
        self.add("events", [{"user_id": user, "item_id": item, "event_ts": stamp, "ds": stamp.date()}])


RULES = EntryRules(model_version="v1", k=10, entries=30, policy={"name": "all"}, buckets=4, code="c")
POLICY = PolicyReport(
    plan_reason="full night: no earlier certified one", users=7, pairs=1234, pairs_avoided=4321, seconds=3.0,
    pairs_per_second=411.0, users_taken_over=2,
)  # fmt: skip

SEGMENTS = {
    "cold": SegmentReport(users=1, users_with_shortfall=1),
    "active": SegmentReport(users=4, users_with_shortfall=0),
    "idle": SegmentReport(users=2, users_with_shortfall=0),
}


def checks(short: float = 0.0625, holds: bool = True) -> list[CheckReport]:
    """Return the checks of an audit, of which one has the given value."""
    return [
        CheckReport(name="certificate", value=1, limit=1, upper=False, holds=True),
        CheckReport(name="short_share", value=short, limit=0.1, holds=holds),
        CheckReport(name="item_coverage", value=0.75, limit=0.001, upper=False, holds=True),
        CheckReport(name="jaccard", value=0.875, limit=0.3, upper=False, segment="active", holds=True),
    ]


def certificate() -> CertificateManifest:
    """Return a certificate that passed."""
    return CertificateManifest(
        users=24, candidates=120, worst_relative_error=1.5e-7, tolerance=1e-4, passed=True, seconds=6.5
    )


def scored_manifests(base: str | None) -> list[Manifest]:
    """Return the manifests of a run up to its lists, full or built on another run."""
    start = BaseRun(run_id=base, ds=base.split(".")[0], anchors=[base], held=[]) if base else None
    why = f"incremental night: from run {base}" if base else "full night: no earlier certified one"
    return [
        IngestManifest(seconds=1.25),
        BankManifest(model="mha", model_version="v1", versions={}, candidates=120, seconds=2.25),
        StatesManifest(
            model="mha", model_version="v1", versions={}, users=7, cold_users=1, events=99, seconds=3.25
        ),
        ScoringPlanManifest(buckets=4, units_per_commit=4, settings=[RULES], why=why, base=start),
        ScoreManifest(
            model="mha", model_version="v1", k=10, policies={"all": POLICY}, versions={}, seconds=4.25,
            forecast=ForecastComparison(
                predicted_seconds=3.5, actual_seconds=3.0, share_of_night=1, cost=0.0125,
                cost_per_million_pairs=2.5,
            ),
        ),
    ]  # fmt: skip
