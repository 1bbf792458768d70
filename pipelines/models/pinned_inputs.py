"""Find the inputs of a night: one bundle, and the Delta versions that its building jobs pinned."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

from lime_model.bundle import BundleError
from pipelines.models.champions import find_champion, need_champion
from pipelines.store.leases import Run
from pipelines.store.manifests import BankManifest, IngestManifest, StatesManifest
from pipelines.store.runs import find_manifest, need_manifest
from pipelines.store.tables import Warehouse

log = logging.getLogger(__name__)


class PinnedInputs(NamedTuple):
    """The bundle and the version of `events` that all jobs of a run read."""

    model_version: str
    events: int


def pin_inputs(warehouse: Warehouse, run: Run, model: str, ingested: IngestManifest) -> IngestManifest:
    """Pin the newest log and the night's champion, if there is one, in the manifest of the run's first job.

    Args:
        warehouse: the warehouse that contains the log.
        run: the run whose inputs are pinned.
        model: the name of the night's model.
        ingested: the manifest of the job, to which the pinned inputs are added.
    """
    pinned = {
        "model": model,
        "model_version": find_champion(warehouse, model, run.ds),
        "versions": {"events": warehouse.version("events")},
    }
    return ingested.model_copy(update=pinned)


def find_pinned_inputs(warehouse: Warehouse, run: Run, model: str) -> PinnedInputs:
    """Find the bundle and the log that the run's jobs read.

    They are those that the run's first job has pinned. A bundle that is promoted or a drop that is ingested
    meanwhile is used by the next run only, so that concurrent jobs and retries of one run read the same. If
    no job has pinned them, they are the night's champion and the newest log.

    Args:
        warehouse: the warehouse that contains the log.
        run: the run whose inputs are wanted.
        model: the name of the night's model.

    Raises:
        BundleError: no job has pinned a bundle, and the model has no champion.
        MissingTable: no job has pinned a log, and no event has been ingested.
    """
    pinned: PinnedInputs | None = None
    for found in (
        find_manifest(warehouse, run.run_id, IngestManifest),
        find_manifest(warehouse, run.run_id, BankManifest),
    ):
        if found and found.model == model and found.model_version:
            pinned = PinnedInputs(found.model_version, found.versions["events"])
    return pinned or PinnedInputs(need_champion(warehouse, model, run.ds), warehouse.version("events"))


def warn_of_newer_inputs(warehouse: Warehouse, run: Run, done: BankManifest | StatesManifest) -> None:
    """Warn if a job was done before and its inputs have changed since.

    Args:
        warehouse: the warehouse that contains the inputs.
        run: the run that the job belongs to.
        done: the manifest of the job; nothing is logged unless it was reused.
    """
    if not done.reused:
        return
    read = {name: done.versions.get(name, -1) for name in ("events", "items", "users")}
    if newer := [name for name, version in read.items() if version not in (-1, warehouse.newest(name))]:
        log.warning(
            "night %s, run %r: %s was done before and is kept; newer since then: %s. "
            "A new --run-key reads them", run.ds, run.key, done.job, ", ".join(newer),
        )  # fmt: skip


@dataclass(frozen=True)
class NightInputs:
    """The model and the Delta versions that a night's tables were built with."""

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
        """Read the inputs from the manifests of the two building jobs.

        Raises:
            BundleError: the two jobs used different bundles, or different versions of the log.
            MissingTable: one of the two jobs has not finished.
        """
        bank = need_manifest(warehouse, run, BankManifest)
        states = need_manifest(warehouse, run, StatesManifest)
        if bank.model_version != states.model_version:
            raise BundleError(
                f"night {run.ds}: the candidate bank is of model {bank.model_version} and the link states "
                f"are of {states.model_version}; build both with the same bundle under a new --run-key"
            )
        v, w = bank.versions, states.versions
        if v["events"] != w["events"]:
            raise BundleError(
                f"night {run.ds}: the bank was built from events at version {v['events']} and the states "
                f"from {w['events']}; build both again under a new --run-key"
            )
        return cls(
            bank.model, bank.model_version, v["candidate_bank"], v["item_bias"],
            w["user_link_states"], w["user_memory"], w["events"], v["items"], w["users"],
        )  # fmt: skip
