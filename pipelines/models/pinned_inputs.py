"""What a night reads: one model, and the Delta versions that its building jobs pinned."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from lime_model.bundle import BundleError
from pipelines.models.champions import find_champion, need_champion
from pipelines.store.leases import Run
from pipelines.store.runs import Manifest, find_manifest, need_manifest
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)


def pin_inputs(warehouse: Warehouse, run: Run, model: str) -> Manifest:
    """What the run's first job writes down: the newest log and the night's champion, if there is one."""
    champion = find_champion(warehouse, model, run.ds)
    return {"model": model, "model_version": champion, "versions": {"events": warehouse.version("events")}}


def find_pinned_inputs(warehouse: Warehouse, run: Run, model: str) -> tuple[str, int]:
    """Bundle and version of `events` that the run's jobs read.

    They are those of the job that came first: what is promoted or ingested meanwhile is the next run's, so
    that jobs side by side and retries read one and the same.

    Raises:
        BundleError: the model has no champion.
    """
    fixed: Manifest = {}
    for job in ("ingest_events", "build_candidate_bank"):
        found = find_manifest(warehouse, run.run_id, job)
        if found and found["model"] == model and found["model_version"]:
            fixed = found
    version = fixed.get("model_version") or need_champion(warehouse, model, run.ds)
    return version, fixed["versions"]["events"] if fixed else warehouse.version("events")


def warn_of_newer_inputs(warehouse: Warehouse, run: Run, job: str, done: Manifest) -> None:
    """Warn that a job which was done before stands, though its tables have changed since."""
    if not done.get("reused"):
        return
    read = {name: done["versions"].get(name, -1) for name in ("events", "items", "users")}
    if newer := [name for name, version in read.items() if version not in (-1, warehouse.newest(name))]:
        log.warning(
            "night %s, run %r: %s was done before and stands; newer since: %s. A new --run-key takes it in",
            run.ds, run.key, job, ", ".join(newer),
        )  # fmt: skip


@dataclass(frozen=True)
class NightInputs:
    """Delta versions and model that a night's tables were built with."""

    model: str
    model_version: str
    bank: int
    bias: int
    states: int
    memory: int
    events: int
    items: int
    users: int

    @classmethod
    def of(cls, warehouse: Warehouse, run: Run) -> NightInputs:
        """From the manifests of the two building jobs.

        Raises:
            BundleError: they used different bundles, or different versions of the log.
            MissingTable: one of them has not run.
        """
        bank = need_manifest(warehouse, run, "build_candidate_bank")
        states = need_manifest(warehouse, run, "build_link_states")
        if bank["model_version"] != states["model_version"]:
            raise BundleError(
                f"night {run.ds}: the candidate bank is of model {bank['model_version']} and the link states "
                f"are of {states['model_version']}; build both with the same bundle under a new --run-key"
            )
        v, w = bank["versions"], states["versions"]
        if v["events"] != w["events"]:
            raise BundleError(
                f"night {run.ds}: the bank was built from events at version {v['events']} and the states "
                f"from {w['events']}; build both again under a new --run-key"
            )
        return cls(
            bank["model"], bank["model_version"], v["candidate_bank"], v["item_bias"],
            w["user_link_states"], w["user_memory"], w["events"], v["items"], w["users"],
        )  # fmt: skip
