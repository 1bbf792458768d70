"""Forecast the scoring of a night: pairs, bytes, memory, tasks, seconds and cost.

The work is estimated as scoring will plan it (`workload.py`): for an incremental night, the users who are
scored in full and those whose lists are taken over. The speeds of both are measured (`calibration.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyspark.sql import functions as F

from lime_model.bundle import Bundle
from lime_model.errors import LimeError
from lime_model.rows.link_states import state_bytes
from lime_model.scoring.cells import WIDTH, Shape
from pipelines.build.corpus import CorpusVersions, read_corpus
from pipelines.models.bundles import ship_bundle
from pipelines.models.champions import need_champion
from pipelines.schemas import ELIGIBLE, USER_ID
from pipelines.score.base_night import MARGIN
from pipelines.score.calibration import Sizes, Speed, calibrate
from pipelines.score.placement import Placement, place_scoring
from pipelines.score.workload import Workload, expect_workload
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.manifests import (
    BackendReport,
    BankManifest,
    ForecastComparison,
    ForecastManifest,
    PolicyReport,
    ScoreManifest,
    StatesManifest,
)
from pipelines.store.runs import find_manifest, find_manifests, run_once
from pipelines.store.tables import Warehouse

# The private memory of a worker in bytes, in addition to the shared bank (benchmarks/results/scoring.json).
WORKER_BYTES = 600 << 20
# The seconds that each commit takes in addition to scoring: to start tasks, to read and to write. The first
# number is used if there is no earlier night. The second is the limit if the newest earlier night is of the
# other kind (full or incremental).
COMMIT_SECONDS, MOST_SECONDS = 3.0, 15.0

Hosts = Sequence[Mapping[str, Any]]  # what `calibrate` measured on each core or GPU


class ImpossibleNight(LimeError):
    """The cluster cannot hold what the night needs."""


class NightSides(NamedTuple):
    """How many users a night has, how many events they have, and how many candidates are eligible."""

    users: int
    events: int
    candidates: int


def plan_night(warehouse: Warehouse, run: Run, price: float | None = None) -> ForecastManifest:
    """Forecast the scoring of a night, and record the forecast; scoring compares itself with it.

    Args:
        warehouse: holds the tables.
        run: the run of the night.
        price: the price of one core (or GPU, if GPUs score) for an hour; None leaves the cost out.

    Raises:
        ImpossibleNight: a host lacks disk space or memory; the message names the numbers.
    """

    def work() -> ForecastManifest:
        name = warehouse.settings.night.model
        bundle = ship_bundle(warehouse, name, need_champion(warehouse, name, run.ds))
        night = warehouse.settings.night
        sides = count_sides(warehouse, run, bundle.config.bias_days)
        expected = expect_workload(warehouse, run, bundle.version, sides.users, sides.candidates)
        # The placement is chosen after the counts, because by then the executors have started.
        placement = place_scoring(warehouse.spark.sparkContext, night.backend, night.device)
        hosts = _measure(warehouse, bundle, placement, sides, expected.work)
        bank = _bank_bytes(bundle, sides.candidates)
        check_room(hosts, bank)
        commits = -(-night.buckets // night.units_per_commit)
        of_commit = seconds_of_commit(warehouse, run, hosts, incremental=expected.work.taken_over > 0)
        seconds = predict_seconds(expected.work, hosts) + commits * of_commit
        cost = None if price is None else seconds / 3600 * placement.tasks * price
        return ForecastManifest(
            plan_reason=expected.reason,
            **expected.work._asdict(),
            taken_over=expected.work.taken_over,
            pairs=expected.work.pairs,
            pairs_avoided=sides.users * sides.candidates - expected.work.pairs,
            bank_bytes=bank,
            state_bytes=sides.users * state_bytes(bundle.config),
            worker_bytes=WORKER_BYTES,
            tasks=placement.tasks,
            commits=commits,
            seconds_of_commit=round(of_commit, 1),
            backend=BackendReport(**placement.choice._asdict()),
            **{name: round(sum(host[name] for host in hosts)) for name in Speed._fields},
            predicted_seconds=round(seconds, 1),
            price_per_hour=price,
            predicted_cost=cost,
        )

    return run_once(warehouse, forecast_run(run), ForecastManifest, work)


def _bank_bytes(bundle: Bundle, candidates: int) -> int:
    """Compute the bytes of a packed bank."""
    config = bundle.config
    return -(-candidates // WIDTH) * 4 * Shape(config.links, config.hidden, config.dot).words


def _measure(
    warehouse: Warehouse, bundle: Bundle, placement: Placement, sides: NightSides, work: Workload
) -> list[dict[str, Any]]:
    """Measure how fast the cores or GPUs are at the sizes of the night."""
    k = warehouse.settings.night.k
    history = -(-sides.events // max(sides.users, 1))
    sizes = Sizes(sides.candidates, history, k, k * (1 + MARGIN))
    if work.taken_over:
        sizes = sizes._replace(changed=work.changed, moved=round(work.each - work.changed))
    return calibrate(warehouse, bundle.version, placement, sizes)


def predict_seconds(work: Workload, hosts: Hosts) -> float:
    """Predict the seconds that all cores together take to read every user and make every list."""
    total = Speed(*(sum(host[name] for host in hosts) for name in Speed._fields))
    seconds = work.users / total.users_per_second + work.in_full * work.candidates / total.pairs_per_second
    return seconds + (work.taken_over / total.taken_over_per_second if work.taken_over else 0.0)


class _ScoredNight(NamedTuple):
    """The scoring of an earlier night; `same_kind`: both nights are full, or both are incremental."""

    same_kind: bool
    ds: str
    run_id: str
    report: PolicyReport


def seconds_of_commit(warehouse: Warehouse, run: Run, hosts: Hosts, *, incremental: bool) -> float:
    """Derive the seconds of a commit in addition to scoring from the newest earlier night.

    Args:
        warehouse: holds the manifests.
        run: the run of the night that is forecast.
        hosts: the speeds measured now; they predict the scoring of the earlier night.
        incremental: whether the night that is forecast takes lists over.
    """
    nights = _find_scored(warehouse, run, incremental=incremental)
    if not nights:
        return COMMIT_SECONDS
    newest = max(nights, key=lambda night: night[:3])
    report, taken = newest.report, newest.report.users_taken_over or 0
    in_full = report.users - taken
    each = round((report.pairs - report.pairs_taken_over) / max(in_full, 1))
    if taken and not all(host["taken_over_per_second"] for host in hosts):
        return COMMIT_SECONDS  # a full night does not measure the speed of taking lists over
    work = Workload(report.users, in_full, each, 0, 0.0)
    rest = max(0.0, report.seconds - predict_seconds(work, hosts)) / report.commits
    return rest if newest.same_kind else min(rest, MOST_SECONDS)


def _find_scored(warehouse: Warehouse, run: Run, *, incremental: bool) -> list[_ScoredNight]:
    """Find the earlier nights that were scored completely in one attempt; evaluations do not count."""
    policy, nights = warehouse.settings.night.policy.name, []
    for done in find_manifests(warehouse, ScoreManifest):
        report = done.manifest.policies.get(policy)
        owns_night = done.ds < run.ds and done.run_id.split(".")[1].isdigit()
        if not owns_night or report is None or report.users_taken_over is None or report.commits_reused:
            continue
        same_kind = (report.users_taken_over > 0) == incremental
        nights.append(_ScoredNight(same_kind, done.ds, done.run_id, report))
    return nights


def forecast_run(run: Run) -> Run:
    """Return the run that a forecast is recorded under: a forecast takes no lease, so it has no epoch."""
    return Run(run.ds, f"plan-{run.key}")


def find_forecast(warehouse: Warehouse, run: Run) -> ForecastManifest | None:
    """Find the forecast of a run; None when there is none."""
    return find_manifest(warehouse, forecast_run(run).run_id, ForecastManifest)


def compare_forecast(
    forecast: ForecastManifest | None, staged: Mapping[str, PolicyReport]
) -> ForecastComparison | None:
    """Compare a forecast with the scoring that followed; return None without a forecast.

    Args:
        forecast: the forecast of the run, if there is one.
        staged: the reports by policy; all have the same seconds and rates.
    """
    if forecast is None:
        return None
    first = next(iter(staged.values()))
    # Both numbers are of this attempt: it did not pay for what earlier attempts had staged.
    share = 1 - first.commits_reused / first.commits
    predicted = round(forecast.predicted_seconds * share, 1)
    cost = per_million = None
    if forecast.price_per_hour is not None:
        cost = first.seconds / 3600 * forecast.tasks * forecast.price_per_hour
        per_million = cost / max(first.pairs_per_second * first.seconds, 1) * 1e6
    return ForecastComparison(
        predicted_seconds=predicted,
        actual_seconds=first.seconds,
        share_of_night=share,
        cost=cost,
        cost_per_million_pairs=per_million,
    )


def count_sides(warehouse: Warehouse, run: Run, bias_days: int) -> NightSides:
    """Count users, events and candidates from the manifests of the night's builds, or else from the tables.

    Args:
        warehouse: holds the tables.
        run: the run of the night.
        bias_days: the days of events that `read_corpus` counts.
    """
    policy = warehouse.settings.night.policy
    states = find_manifest(warehouse, run.run_id, StatesManifest)
    bank = find_manifest(warehouse, run.run_id, BankManifest)
    if states and bank:
        return NightSides(states.users, states.events, bank.eligible[policy.name])
    known = read_entity(warehouse, "users", run.ds, warehouse.newest("users")).select(USER_ID)
    seen = read_events(warehouse, run.ds).select(USER_ID)
    versions = CorpusVersions(warehouse.version("events"), warehouse.newest("items"))
    corpus = read_corpus(warehouse, run.ds, versions, [policy], bias_days)
    users = known.union(seen).distinct().count()
    return NightSides(users, seen.count(), corpus.where(F.col(ELIGIBLE) == 1).count())


def check_room(hosts: Hosts, bank: int) -> None:
    """Check that every host can hold the bank on disk and its workers in memory.

    A host's disk holds the bank once for each executor, as broadcast blocks, and once more for the workers.

    Args:
        hosts: what `calibrate` measured on each core or GPU.
        bank: bytes of the packed bank.

    Raises:
        ImpossibleNight: a host lacks room; the message names it, the bytes needed and the bytes free.
    """
    for name in sorted({host["host"] for host in hosts}):
        here = [host for host in hosts if host["host"] == name]
        free, memory = (min(host[key] for host in here) for key in ("free_bytes", "memory_bytes"))
        executors = len({host["executor"] for host in here})
        wanted = (executors + 1) * bank
        if free < wanted:
            raise ImpossibleNight(
                f"{executors} executors on {name} take {wanted:,} bytes of Spark's local directory for a "
                f"bank of {bank:,}, and {free:,} are free there; make room, give executors another "
                "spark.local.dir, run fewer and larger ones, or score fewer candidates"
            )
        if memory < len(here) * WORKER_BYTES:
            raise ImpossibleNight(
                f"{len(here)} workers on {name} take up to {len(here) * WORKER_BYTES:,} bytes and {memory:,} "
                "are available; run fewer tasks at once there (spark.executor.cores), or use larger hosts"
            )
