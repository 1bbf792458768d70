"""Check a job against the tables before it takes the lease of a night from the run that holds it.

So a mistake in a command does not end a correct run. Each check raises the error that the job would have
ended with, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from pyspark.sql.types import NullType

from lime_model.bundle import BundleError
from pipelines.errors.stack_traces import one_line
from pipelines.export.export_lists import find_exporters
from pipelines.models.bundles import bundle_exists, bundle_uri
from pipelines.models.champions import need_champion
from pipelines.schemas import DS
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.steps import NEEDS, Job
from pipelines.store.catalogue import read_entity
from pipelines.store.leases import Run, find_run
from pipelines.store.manifests import (
    AuditManifest,
    BankManifest,
    CertificateManifest,
    ScoreManifest,
    StatesManifest,
)
from pipelines.store.runs import find_manifest
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable

BUILD = frozenset((Job.BUILD_CANDIDATE_BANK, Job.BUILD_LINK_STATES))  # these need the night's champion
# The manifest of each step that another step needs.
MANIFESTS = {
    kind.job: kind
    for kind in (BankManifest, StatesManifest, ScoreManifest, CertificateManifest, AuditManifest)
}


def check_steps(warehouse: Warehouse, night: str, key: str, steps: Sequence[Job]) -> None:
    """Check that steps of a night can run, before the first of them takes the lease.

    Args:
        warehouse: holds the tables.
        night: the date of the night (YYYY-MM-DD).
        key: the run key under which the steps will run.
        steps: the steps, in the order in which they will run.

    Raises:
        SettingsError: `night.policy.eligible` does not fit the item columns.
        MissingTable: a table does not exist, or a step needs another one that has not finished in this run
            and does not come before it.
        BundleError: there is no bundle for the night.
    """
    run = find_run(warehouse, night, key)
    _check_order(warehouse, run, steps)
    loads = Job.INGEST_EVENTS in steps  # if so, ingest will change the tables before the night reads them
    if loads or BUILD.intersection(steps):
        check_eligible(warehouse, night, [warehouse.settings.night.policy], stored=not loads)
    if BUILD.intersection(steps) or (loads and run.epoch is None and _taken(warehouse, night)):
        check_champion(warehouse, warehouse.settings.night.model, night)
    if BUILD.intersection(steps) and not loads:
        warehouse.version("events")
    if Job.EXPORT_RECOMMENDATIONS in steps and Job.PUBLISH_RECOMMENDATIONS not in steps:
        _check_published(warehouse, night)


def check_plan(warehouse: Warehouse, night: str) -> None:
    """Check that the scoring of a night can be forecast.

    Raises:
        SettingsError: `night.policy.eligible` does not fit the item columns.
        BundleError: there is no bundle for the night.
        MissingTable: no event was ever loaded.
    """
    check_eligible(warehouse, night, [warehouse.settings.night.policy])
    check_champion(warehouse, warehouse.settings.night.model, night)
    warehouse.version("events")


def check_champion(warehouse: Warehouse, model: str, night: str) -> None:
    """Check that a model has a champion for a night, and that its bundle exists.

    Args:
        warehouse: holds the decisions on champions and names the folder of the bundles.
        model: the name of the model.
        night: the date of the night (YYYY-MM-DD).

    Raises:
        BundleError: the model has no champion for the night, or the bundle does not exist.
    """
    version = need_champion(warehouse, model, night)
    uri = bundle_uri(warehouse, model, version)
    if not bundle_exists(warehouse.spark, uri):
        raise BundleError(
            f"night {night}: bundle {version} of model {model!r} is not at {uri}; restore it, or train "
            f"one with lime train --ds {night} --model {model}"
        )


def check_eligible(
    warehouse: Warehouse, night: str, policies: Sequence[Policy], *, stored: bool = True
) -> None:
    """Check every policy's rule on an empty table of items, with the declared columns and the stored ones.

    Args:
        warehouse: holds the items.
        night: the date of the night (YYYY-MM-DD).
        policies: the policies whose rules are checked.
        stored: whether the columns of the stored table are checked too.

    Raises:
        SettingsError: a rule is not SQL, names a column that items do not have, is not a condition on one
            row, or may change its result each time it is evaluated.
    """
    versions = {-1, warehouse.newest("items")} if stored else {-1}
    for version in sorted(versions):
        items = read_entity(warehouse, "items", night, version).limit(0)
        for policy in policies:
            try:
                rule = F.expr(policy.eligible)
                if items.select(rule.alias("rule")).schema["rule"].dataType == NullType():
                    continue  # a rule that is null counts as false
                plan = items.where(rule)._jdf.queryExecution().analyzed()
            except PySparkException as error:
                raise SettingsError(
                    f"policy {policy.name}: its rule eligible: {policy.eligible!r} does not fit the item "
                    f"columns {items.columns}: {one_line(str(error))}. Correct it; nothing was changed"
                ) from error
            if not plan.deterministic():
                raise SettingsError(
                    f"policy {policy.name}: its rule eligible: {policy.eligible!r} would say something else "
                    "each time it is asked, and a rerun gives the same lists; use the item columns alone"
                )


def _check_order(warehouse: Warehouse, run: Run, steps: Sequence[Job]) -> None:
    for place, step in enumerate(steps):
        for needed in NEEDS[step]:
            found = find_manifest(warehouse, run.run_id, MANIFESTS[needed])
            done = run.epoch is not None and found is not None
            if not done and needed not in steps[:place]:
                raise MissingTable(
                    f"night {run.ds}, run {run.key!r}: {needed} has not finished, and {step} reads what it "
                    f"writes; run jobs/{needed}.py first with the same --ds and --run-key, or look whether "
                    "this is the --run-key that you mean. Nothing was changed"
                )


def _taken(warehouse: Warehouse, night: str) -> bool:
    """Whether some run owns the night."""
    return any(str(row[DS]) == night for row in warehouse.read_cached("leases"))


def _check_published(warehouse: Warehouse, night: str) -> None:
    if not find_exporters(warehouse):
        return
    rows = warehouse.read("recommendations").where(F.col(DS) == F.lit(night).cast("date"))
    if not rows.limit(1).count():
        raise MissingTable(f"night {night} is not published, so there is nothing to export; publish it first")
