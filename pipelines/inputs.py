"""What a night reads: one model, and the Delta versions that its building jobs pinned."""

from __future__ import annotations

from dataclasses import dataclass

from lime_model.bundle import Bundle, BundleError
from pipelines.leases import Run
from pipelines.runs import need_manifest
from pipelines.tables import Warehouse


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


def check_version(bundle: Bundle, inputs: NightInputs) -> None:
    """The bundle in the store must be the one the night was built with.

    Raises:
        BundleError: it was replaced in between.
    """
    if bundle.version != inputs.model_version:
        raise BundleError(
            f"the bundle of {inputs.model!r} is now {bundle.version} but this night was built with "
            f"{inputs.model_version}; restore it or build the night again under a new --run-key"
        )
