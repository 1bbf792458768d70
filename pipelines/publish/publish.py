"""Publishing: staged, certified and audited lists become `recommendations` in one commit.

The commit's metadata carries the manifest and is the truth; its transaction number is the
lease's epoch, so Delta itself refuses an older run. A failed night leaves the last answer.
"""

from __future__ import annotations

import json

from pyspark.sql import functions as F

from pipelines.publish.night_record import read_disproved, read_state
from pipelines.publish.verify_night import CertificateFailed
from pipelines.store.leases import Run, StaleRun, check_lease
from pipelines.store.predicates import equals
from pipelines.store.runs import Manifest, need_manifest, run_once
from pipelines.store.schemas import DS, MODEL_VERSION, POLICY, RUN_ID
from pipelines.store.tables import Warehouse


def publish_recommendations(warehouse: Warehouse, run: Run) -> Manifest:
    """Replace the night's lists by this run's.

    Raises:
        MissingTable: the run was not scored, not certified or not audited.
        StaleRun: a newer run owns the night.
        CertificateFailed: a full night has disproved the run, or one that it was built on.
    """

    if run.epoch is None:
        raise StaleRun(f"run {run.key!r} holds no lease on night {run.ds}; it stages and never publishes")
    epoch = run.epoch

    def work() -> Manifest:
        check_lease(warehouse, run)
        certificate = need_manifest(warehouse, run, "verify_night")
        if run.run_id in read_disproved(warehouse):
            raise CertificateFailed(
                f"night {run.ds}, run {run.key!r}: lists of it, or of a night that it was built on, are not "
                "those of a full night (verify_night --full); nothing was published. Score the night with "
                "night.reuse: false under a new --run-key"
            )
        audits = need_manifest(warehouse, run, "audit_recommendations")
        scored = need_manifest(warehouse, run, "score_candidates")
        states = need_manifest(warehouse, run, "build_link_states")
        bank = need_manifest(warehouse, run, "build_candidate_bank")
        policy = warehouse.settings.night.policy.name
        mine = (F.col(RUN_ID) == run.run_id) & (F.col(POLICY) == policy)
        rows = warehouse.read("staging", scored["versions"]["staging"]).where(mine)
        manifest = {
            "run_id": run.run_id,
            "run_key": run.key,
            "policy": policy,
            "model_version": scored["model_version"],
            "versions": {**bank["versions"], **states["versions"], **scored["versions"]},
            "scoring": scored["policies"][policy],
            "items_left_out": scored["items_left_out"],
            "backend": scored["backend"],
            "certificate": certificate,
            "audits": audits,
            **({"forecast": scored["forecast"]} if "forecast" in scored else {}),
        }
        lists = rows.withColumns({DS: F.lit(run.ds), MODEL_VERSION: F.lit(scored["model_version"])})
        tag = json.dumps(manifest)
        warehouse.replace(
            "recommendations",
            lists.coalesce(4),
            equals(ds=run.ds),
            metadata=tag,
            txn=(f"publish-{run.ds}", epoch),
        )
        if warehouse.find_commit("recommendations", tag) is None:
            _confirm(warehouse, run)
        return {**manifest, "versions": {"recommendations": warehouse.version("recommendations")}}

    return run_once(warehouse, run, "publish_recommendations", work)


def _confirm(warehouse: Warehouse, run: Run) -> None:
    """Delta skips a repeated or stale transaction number without a word, so read what is in force now.

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
