"""Score a chain of nights incrementally, and each night also in full; part of `make bench-nights`.

1. The synthetic chain has 20,000 users, 100,000 items and K = 100. A night brings events of a tenth of the
   users, 1 % new, 1 % changed and 0.2 % removed items. The bias is 0.3 standard deviations of z times log1p
   of an item's events in 7 days, and items are bought by Zipf's law.
2. The other chain is The Complete Journey from 2017-12-04 to 2017-12-31, with the demo's settings.

Every list must equal, bit for bit, the list of the full night over the same states and bank (`verify_full`).
The full night keeps no entries for a later night, which makes it cheaper.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray

from benchmarks.problem import CONFIG
from benchmarks.report import ROOT, Row, row
from demo.complete_journey import FIRST_DAY, write_drops
from lime_model.bundle import load_bundle, save_bundle
from lime_model.model.lime import Features, History
from pipelines.ingest.load_days import day_before, ingest_days
from pipelines.learn.train import train_models
from pipelines.models.bundles import bundle_uri, fetch_bundle, store_folder
from pipelines.models.champions import need_champion, promote
from pipelines.night import STEPS
from pipelines.publish.full_comparison import prepare_full_night, verify_full
from pipelines.score.stage import score_candidates
from pipelines.settings.settings import load_settings
from pipelines.steps import Job
from pipelines.store.leases import acquire_lease
from pipelines.store.session import open_session
from pipelines.store.tables import Warehouse
from synthetic import shop

USERS, ITEMS, LOOK = 20_000, 100_000, 16  # an item is described by LOOK numbers
PAST, EVENTS = 20, 3  # events of a user before the first night, and of an active user in a night
ACTIVE, NEW, CHANGED, REMOVED = 0.1, 0.01, 0.01, 0.002
START = "2024-05-01"  # the first night, a full one
JOURNEY, JOURNEY_NIGHT = "lime-mha", "2017-12-04"


class Night(NamedTuple):
    """The pairs and seconds of scoring a night, incrementally and in full."""

    plan: str
    users: int
    pairs: int
    full_pairs: int
    seconds: float
    full_seconds: float


def score_night(warehouse: Warehouse, ds: str) -> Night:
    """Run and certify a night, and score the same night in full.

    Raises:
        CertificateFailed: a list of the two differs.
    """
    run = acquire_lease(warehouse, ds, "night")
    for name in (Job.BUILD_CANDIDATE_BANK, Job.BUILD_LINK_STATES):
        STEPS[name](warehouse, run)
    seconds = _time(lambda: STEPS[Job.SCORE_CANDIDATES](warehouse, run))
    STEPS[Job.VERIFY_NIGHT](warehouse, run)
    whole = prepare_full_night(warehouse, run)
    full_seconds = _time(
        lambda: score_candidates(whole.warehouse, whole.run, [warehouse.settings.night.policy])
    )
    found = verify_full(warehouse, run)
    pairs = found.pairs, found.pairs_of_full_night
    return Night(found.plan_reason, found.users, *pairs, seconds, full_seconds)


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rows_of(name: str, nights: Sequence[Night], pairs: str, wall: str = "") -> list[Row]:
    """Return the rows of a chain, which cover the nights after the first.

    Args:
        name: the name of the chain.
        nights: the nights, the first of which is a full one.
        pairs: the target of the share of pairs, such as "<= 0.2".
        wall: the target of the ratio of seconds, or nothing.
    """
    later = nights[1:]
    share = sum(n.pairs for n in later) / sum(n.full_pairs for n in later)
    ratios = [n.seconds / n.full_seconds for n in later]
    about = f"of {len(later)} nights, {sum(n.plan.startswith('incremental') for n in later)} incremental"
    full, saved = [n.full_seconds for n in later], sum(n.full_seconds - n.seconds for n in later)
    return [
        row(f"{name}: lists compared, all equal", sum(n.users for n in later), ""),
        row(f"{name}: pairs scored / those of full nights", share, about, pairs),
        row(f"{name}: scoring job / that of the full night, median", statistics.median(ratios), "x", wall),
        row(f"{name}: scoring job of a full night, median", statistics.median(full), "s"),
        row(f"{name}: seconds of scoring saved in all", saved, "s"),
    ]  # fmt: skip


def synthetic(root: Path, nights: int) -> list[Row]:
    """Run the synthetic chain of `nights` after the first night, in a new warehouse under `root`."""
    (root / "settings.yaml").write_text(yaml.safe_dump(synthetic_settings(root)))
    settings = load_settings(str(root / "settings.yaml"))
    spark = open_session(settings, "bench-chain")
    warehouse, world = Warehouse(spark, settings), World(Path(settings.drops))
    world.bring_past()
    first = str((pd.Timestamp(START) - pd.Timedelta(days=PAST)).date())
    ingest_days(warehouse, first, day_before(START))
    train_models(warehouse, START, ["mha"])
    set_bias(warehouse)
    chain = []
    for number in range(nights + 1):
        ds = str((pd.Timestamp(START) + pd.Timedelta(days=number)).date())
        if number:
            world.bring_day(day_before(ds))
            ingest_days(warehouse, day_before(ds), day_before(ds))
        chain.append(score_night(warehouse, ds))
        print(ds, chain[-1], flush=True)
    spark.stop()
    return rows_of(f"{USERS:,} users x {ITEMS:,} items", chain, "<= 0.14", "<= 0.3")


def synthetic_settings(root: Path) -> dict[str, object]:
    """Return the shop's settings at these sizes, with items that are described by numbers."""
    raw = shop.settings(root, k=100, buckets=16, units_per_commit=16, certificate_users=50)
    raw["night"]["policy"] = {"name": "all", "exclude_seen": "none", "eligible": "look IS NOT NULL"}
    raw["ingest"]["items"] = {"columns": {"look": "array<double>"}, "absent": "remove"}
    raw["ingest"]["users"] = {"columns": {}}
    sizes = {"links": CONFIG.links, "width": CONFIG.width, "hidden": CONFIG.hidden, "dot": CONFIG.dot}
    columns = {"item_columns": [{"name": "look", "kind": "vector", "size": LOOK}], "user_columns": []}
    model = raw["models"][0]
    model["config"] |= {**sizes, **columns, "bias_days": 7, "event_types": ["purchase"]}
    model["train"] = {"steps": 5, "link_steps": 2, "horizon_days": 7, "first_cut_days": 8, "min_events": 2}
    raw["models"] = [model]
    conf = {key: value for key, value in raw["spark"]["conf"].items() if "spark.sql" not in key}
    conf |= {"spark.sql.shuffle.partitions": "4", "spark.driver.memory": "4g"}
    raw["spark"]["conf"] = conf
    return raw


class World:
    """A synthetic world: users, items and their events, written as drops."""

    def __init__(self, drops: Path) -> None:
        self.drops, self.rng = drops, np.random.default_rng(0)
        self.ids = np.arange(ITEMS)
        self.looks = self.rng.standard_normal((ITEMS, LOOK))
        self.popular = self.rng.permutation(ITEMS)  # Zipf's ranks

    def bring_past(self) -> None:
        """Write the items and one event of every user on each of `PAST` days."""
        days = pd.date_range(end=pd.Timestamp(START) - pd.Timedelta(days=1), periods=PAST)
        users = pd.DataFrame({"user_id": np.arange(USERS)})
        shop.write_drop(self.drops, "users", str(days[0].date()), users)
        self._bring_items(str(days[0].date()))
        for day in days:
            self._bring_events(str(day.date()), np.arange(USERS), 1)

    def bring_day(self, day: str) -> None:
        """Write the changes of one day: items, and the events of active users."""
        rng, count = self.rng, len(self.ids)
        keep = rng.random(count) >= REMOVED
        changed = rng.random(count) < CHANGED
        self.looks[changed] += 0.3 * rng.standard_normal((int(changed.sum()), LOOK))
        new = int(NEW * count)
        fresh = self.ids.max() + 1 + np.arange(new)
        self.ids = np.append(self.ids[keep], fresh)
        self.looks = np.concatenate([self.looks[keep], rng.standard_normal((new, LOOK))])
        self._bring_items(day)
        active = np.sort(rng.choice(USERS, int(ACTIVE * USERS), replace=False))
        self._bring_events(day, active, EVENTS)

    def _bring_items(self, day: str) -> None:
        frame = pd.DataFrame({"item_id": self.ids, "look": list(self.looks)})
        shop.write_drop(self.drops, "items", day, frame)

    def _bring_events(self, day: str, users: NDArray[np.int64], each: int) -> None:
        size = len(users) * each
        item = self.popular[(self.rng.zipf(1.2, size) - 1) % len(self.popular)]
        frame = pd.DataFrame(
            {
                "user_id": np.repeat(users, each),
                "item_id": np.where(np.isin(item, self.ids), item, self.ids[0]),
            }
        )
        stamp = pd.Timestamp(day) + pd.to_timedelta(np.tile(np.arange(each), len(users)) * 3600, unit="s")
        frame["event_ts"] = stamp.astype("datetime64[us]")
        frame["session_id"] = day
        shop.write_drop(self.drops, "events", day, frame)


def set_bias(warehouse: Warehouse) -> None:
    """Set the weight of the bias to 0.3 standard deviations of z over random histories and items."""
    folder = fetch_bundle(warehouse, "mha", need_champion(warehouse, "mha", START))
    bundle, rng = load_bundle(folder), np.random.default_rng(0)
    model, size = bundle.model, (64, PAST)
    with torch.no_grad():
        items = model.embed_items(bundle.catalogue, rng.integers(1, len(bundle.catalogue.id_rows), 2000))
        events = model.embed_events(items[rng.integers(0, 2000, size)], torch.ones(size, dtype=torch.int64))
        days = torch.linspace(1.0 - PAST, 0.0, PAST).expand(size)
        nobody = Features(torch.zeros(64, 0, dtype=torch.int64), torch.zeros(64, 0))
        state = model.read(History(events, days, torch.ones(size, dtype=torch.bool)), nobody)
        model.bias_weight.fill_(0.3 * float(model.base_scores(state, items).std()))
    version = save_bundle(bundle, folder)
    store_folder(warehouse.spark, folder, bundle_uri(warehouse, "mha", version))
    promote(
        warehouse, "mha", version, valid_from=START, reason="a bias of the size that the benchmark asks for"
    )


def journey(root: Path, nights: int) -> list[Row]:
    """Run a chain of `nights` over the demo's log and settings, in a new warehouse under `root`."""
    raw = yaml.safe_load((ROOT / "conf" / "local.yaml").read_text())
    # One driver serves all nights: each broadcast that Spark has not yet released holds at least one page,
    # and Delta keeps the snapshots of every night.
    raw["spark"]["conf"] |= {"spark.buffer.pageSize": "2m", "spark.driver.memory": "8g"}
    places = {name: str(root / name) for name in ("warehouse", "drops", "bundles")}
    (root / "journey.yaml").write_text(yaml.safe_dump(raw | places))
    settings = load_settings(str(root / "journey.yaml"))
    write_drops(Path(settings.drops))
    spark = open_session(settings, "bench-chain")
    warehouse = Warehouse(spark, settings)
    dates = [str(day.date()) for day in pd.date_range(JOURNEY_NIGHT, periods=nights)]
    ingest_days(warehouse, FIRST_DAY, day_before(dates[-1]))
    train_models(warehouse, JOURNEY_NIGHT, [JOURNEY])
    chain = []
    for ds in dates:
        chain.append(score_night(warehouse, ds))
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
        print(ds, chain[-1], flush=True)
    spark.stop()
    return rows_of("The Complete Journey", chain, "<= 0.2")
