"""What a night will take, before it runs: pairs, bytes, memory, tasks, seconds and cost.

The work is that of the night as scoring will plan it (`workload.py`): of an incremental one, users who are
scored in full and users whose lists are taken over. The rates of both are measured (`calibration.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import functions as F

from lime_model.errors import LimeError
from lime_model.rows.link_states import state_bytes
from lime_model.scoring.cells import WIDTH, Shape
from pipelines.build.candidate_bank import read_corpus
from pipelines.models.bundles import ship_bundle
from pipelines.models.champions import need_champion
from pipelines.score.calibration import Sizes, Speed, calibrate
from pipelines.score.incremental import MARGIN
from pipelines.score.placement import place_scoring
from pipelines.score.workload import Workload, foretell_workload
from pipelines.store.catalogue import read_entity
from pipelines.store.event_log import read_events
from pipelines.store.leases import Run
from pipelines.store.runs import Manifest, find_manifest, find_manifests, run_once
from pipelines.store.schemas import ELIGIBLE, USER_ID
from pipelines.store.tables import Warehouse

WORKER_BYTES = 600 << 20  # a worker's own, above the shared bank: at most (benchmarks/results/scoring.json)
# What a commit takes besides the cores' work, to start tasks, to read and to write: where no night has told,
# and at most by what a night of the other kind (full or incremental) tells.
COMMIT_SECONDS, MOST_SECONDS = 3.0, 15.0


class ImpossibleNight(LimeError):
    """The cluster cannot hold what the night needs."""


def plan_night(warehouse: Warehouse, run: Run, price: float | None = None) -> Manifest:
    """Forecast the scoring of a night; the manifest is kept, and scoring puts its own figures beside it.

    Args:
        price: of a core (or GPU, where one scores) for an hour; None leaves the cost out.

    Raises:
        ImpossibleNight: naming the number that makes it impossible.
    """

    def work() -> Manifest:
        name = warehouse.settings.night.model
        bundle = ship_bundle(warehouse, name, need_champion(warehouse, name, run.ds))
        night, config = warehouse.settings.night, bundle.config
        users, events, candidates = count_sides(warehouse, run, config.bias_days)
        work, why = foretell_workload(warehouse, run, bundle.version, users, candidates)
        # After the counts: executors are up by now.
        placement = place_scoring(warehouse.spark.sparkContext, night.backend, night.device)
        choice, tasks = placement.choice, placement.tasks
        shape = Shape(config.links, config.hidden, config.dot)
        bank = -(-candidates // WIDTH) * 4 * shape.words
        sizes = Sizes(candidates, -(-events // max(users, 1)), night.k, night.k * (1 + MARGIN))
        if work.taken_over:
            sizes = sizes._replace(changed=work.changed, moved=round(work.each - work.changed))
        hosts = calibrate(warehouse, bundle.version, placement, sizes)
        commits = -(-night.buckets // night.units_per_commit)
        of_commit = seconds_of_commit(warehouse, run, hosts, incremental=work.taken_over > 0)
        seconds = foretell_seconds(work, hosts) + commits * of_commit
        check_room(hosts, bank)
        forecast = {
            "plan": why,
            **work._asdict(),
            "taken_over": work.taken_over,
            "pairs": work.pairs,
            "pairs_avoided": users * candidates - work.pairs,
            "bank_bytes": bank,
            "state_bytes": users * state_bytes(config),
            "worker_bytes": WORKER_BYTES,
            "tasks": tasks,
            "commits": commits,
            "seconds_of_commit": round(of_commit, 1),
            "backend": choice._asdict(),
            **{name: round(sum(host[name] for host in hosts)) for name in Speed._fields},
            "predicted_seconds": round(seconds, 1),
        }
        if price is not None:
            cost = seconds / 3600 * tasks * price
            forecast |= {"price_per_hour": price, "predicted_cost": cost}
        return forecast

    return run_once(warehouse, forecast_run(run), "plan_night", work)


def foretell_seconds(work: Workload, hosts: Sequence[Mapping[str, Any]]) -> float:
    """Of all cores together: every user is read, then scored in full or taken over."""
    total = Speed(*(sum(host[name] for host in hosts) for name in Speed._fields))
    seconds = work.users / total.users_per_second + work.in_full * work.candidates / total.pairs_per_second
    return seconds + (work.taken_over / total.taken_over_per_second if work.taken_over else 0.0)


def seconds_of_commit(
    warehouse: Warehouse, run: Run, hosts: Sequence[Mapping[str, Any]], *, incremental: bool
) -> float:
    """What a commit of the newest earlier night took beyond the work of its cores, at the rates of today."""
    policy, nights = warehouse.settings.night.policy.name, []
    for done in find_manifests(warehouse, "score_candidates"):
        told = done.manifest["policies"].get(policy, {})
        mine = done.ds < run.ds and done.run_id.split(".")[1].isdigit()  # not what an evaluation staged
        if mine and told.get("users_taken_over") is not None and not told["commits_reused"]:
            nights.append(((told["users_taken_over"] > 0) == incremental, done.ds, done.run_id, told))
    if not nights:
        return COMMIT_SECONDS
    same_kind, _, _, told = max(nights, key=lambda night: night[:3])
    taken, pairs = told["users_taken_over"], told["pairs"] - told["pairs_taken_over"]
    in_full = told["users"] - taken
    was = Workload(told["users"], in_full, round(pairs / max(in_full, 1)), 0, 0.0)
    if taken and not all(host["taken_over_per_second"] for host in hosts):
        return COMMIT_SECONDS  # a full night after incremental ones only: nobody measured what those did
    rest = max(0.0, told["seconds"] - foretell_seconds(was, hosts)) / told["commits"]
    return rest if same_kind else min(rest, MOST_SECONDS)


def forecast_run(run: Run) -> Run:
    """What a forecast for the run of this key is kept under: it takes no lease, so it knows no epoch."""
    return Run(run.ds, f"plan-{run.key}")


def find_forecast(warehouse: Warehouse, run: Run) -> Manifest | None:
    """What was foretold of the run, None when nobody planned."""
    return find_manifest(warehouse, forecast_run(run).run_id, "plan_night")


def compare_forecast(forecast: Manifest | None, staged: Mapping[str, Manifest]) -> Manifest:
    """What was predicted beside what the scored `staged` policies took; nothing when nobody planned."""
    if forecast is None:
        return {}
    first = next(iter(staged.values()))
    actual = first["seconds"]
    # Both of this attempt: what was staged before, an earlier one paid for.
    share = 1 - first["commits_reused"] / first["commits"]
    predicted = round(forecast["predicted_seconds"] * share, 1)
    compared = {"predicted_seconds": predicted, "actual_seconds": actual, "share_of_night": share}
    if "price_per_hour" in forecast:
        cost = actual / 3600 * forecast["tasks"] * forecast["price_per_hour"]
        pairs = first["pairs_per_second"] * actual
        compared |= {"cost": cost, "cost_per_million_pairs": cost / max(pairs, 1) * 1e6}
    return {"forecast": compared}


def count_sides(warehouse: Warehouse, run: Run, bias_days: int) -> tuple[int, int, int]:
    """Users, their events and the eligible candidates: of the night's manifests once built, else counted."""
    policy = warehouse.settings.night.policy
    states, bank = (
        find_manifest(warehouse, run.run_id, f"build_{job}") for job in ("link_states", "candidate_bank")
    )
    if states and bank:
        return states["users"], states["events"], bank["eligible"][policy.name]
    known = read_entity(warehouse, "users", run.ds, warehouse.newest("users")).select(USER_ID)
    seen = read_events(warehouse, run.ds).select(USER_ID)
    versions = (warehouse.version("events"), warehouse.newest("items"))
    corpus = read_corpus(warehouse, run.ds, versions, [policy], bias_days)
    users = known.union(seen).distinct().count()
    return users, seen.count(), corpus.where(F.col(ELIGIBLE) == 1).count()


def check_room(hosts: list[dict[str, Any]], bank: int) -> None:
    """Every host must hold the bank on disk (its executors' broadcast blocks and once to map), and its
    workers in memory.

    Raises:
        ImpossibleNight: naming host, bytes wanted and bytes there.
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
