"""Publish staged, certified and audited lists: they become `recommendations` in one commit.

The metadata of the commit have the manifest, and they decide which lists are in force. The commit's
transaction number is the epoch of the lease, so Delta itself refuses an older run. After a failed night the
last lists remain in force.
"""

from __future__ import annotations

from pyspark.sql import functions as F

from pipelines.publish.night_record import read_disproved, read_state
from pipelines.publish.verify_night import CertificateFailed
from pipelines.schemas import DS, MODEL_VERSION, POLICY, RUN_ID
from pipelines.store.leases import Run, StaleRun, check_lease
from pipelines.store.manifests import (
    AuditManifest,
    BankManifest,
    CertificateManifest,
    PublishManifest,
    ScoreManifest,
    StatesManifest,
)
from pipelines.store.predicates import equals
from pipelines.store.runs import need_manifest, run_once
from pipelines.store.tables import Warehouse

TABLE = "recommendations"


def publish_recommendations(warehouse: Warehouse, run: Run) -> PublishManifest:
    """Replace the night's lists by this run's.

    Raises:
        MissingTable: the run was not scored, not certified or not audited.
        StaleRun: a newer run owns the night.
        CertificateFailed: a full comparison has disproved the run, or one that it was built on.
    """
    if run.epoch is None:
        raise StaleRun(f"run {run.key!r} holds no lease on night {run.ds}; it stages and never publishes")
    epoch = run.epoch

    def work() -> PublishManifest:
        check_lease(warehouse, run)
        _refuse_disproved(warehouse, run)
        manifest = _describe(warehouse, run)
        mine = (F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == manifest.policy)
        rows = warehouse.read("staging", manifest.versions["staging"]).where(mine)
        lists = rows.withColumns({DS: F.lit(run.ds), MODEL_VERSION: F.lit(manifest.model_version)})
        tag, txn = manifest.to_json(), (f"publish-{run.ds}", epoch)
        warehouse.replace(TABLE, lists.coalesce(4), equals(ds=run.ds), metadata=tag, txn=txn)
        if warehouse.find_commit(TABLE, tag) is None:
            _confirm(warehouse, run)
        return manifest.model_copy(update={"versions": {TABLE: warehouse.version(TABLE)}})

    return run_once(warehouse, run, PublishManifest, work)


def _refuse_disproved(warehouse: Warehouse, run: Run) -> None:
    """Refuse lists that a full comparison has disproved.

    Raises:
        CertificateFailed: it has; the message names the remedy.
    """
    if run.run_id in read_disproved(warehouse):
        raise CertificateFailed(
            f"night {run.ds}, run {run.key!r}: lists of it, or of a night that it was built on, are not "
            "those of a full night (verify_night --full); nothing was published. Score the night with "
            "night.reuse: false under a new --run-key"
        )


def _describe(warehouse: Warehouse, run: Run) -> PublishManifest:
    """Collect what the run's jobs recorded: versions, counts, certificate and audits.

    Raises:
        MissingTable: one of the jobs has not run.
    """
    certificate = need_manifest(warehouse, run, CertificateManifest)
    audits = need_manifest(warehouse, run, AuditManifest)
    scored = need_manifest(warehouse, run, ScoreManifest)
    states = need_manifest(warehouse, run, StatesManifest)
    bank = need_manifest(warehouse, run, BankManifest)
    policy = warehouse.settings.night.policy.name
    return PublishManifest(
        run_id=run.run_id,
        run_key=run.key,
        policy=policy,
        model_version=scored.model_version,
        versions={**bank.versions, **states.versions, **scored.versions},
        scoring=scored.policies[policy],
        items_left_out=scored.items_left_out,
        backend=scored.backend,
        certificate=certificate,
        audits=audits,
        forecast=scored.forecast,
    )


def _confirm(warehouse: Warehouse, run: Run) -> None:
    """Check which lists are in force, because Delta silently skips a repeated or stale transaction number.

    Raises:
        StaleRun: the lists in force are another run's, or the night was withdrawn.
    """
    found = read_state(warehouse, run.ds).in_force
    if found != run.run_id:
        raise StaleRun(
            f"night {run.ds}: run {run.key!r} (epoch {run.epoch}) tried to publish, but a newer epoch "
            + (
                f"published {found}; its lists are in force"
                if found
                else "withdrew the night; it stays withdrawn"
            )
        )
