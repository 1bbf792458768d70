"""What scoring takes over from the last certified night: lists whose users did not change.

The staged rows of a run carry, beside each list, the entries that lime_model/scoring/incremental/kept_entries.py needs on
a later night; one commit holds both, so a crash cannot part them. `candidate_history` holds what
each run's candidates looked like, and carries their biases of the anchor nights on: change and reference
bias are told from the rows of the run before, not from times or from Delta versions that a vacuum may remove.

A night starts from the newest earlier one that was scored for the same model, policy, K and code and
passed its certificate; else it is a full one and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.digests import code_digest
from lime_model.scoring.incremental.night_changes import day_number, write_night_changes
from pipelines.build.candidate_bank import eligible_bit
from pipelines.models.bundles import scratch_folder
from pipelines.models.pinned_inputs import NightInputs
from pipelines.score.broadcast_files import BroadcastFiles, BroadcastSender
from pipelines.settings.night import Policy
from pipelines.store.leases import Run
from pipelines.store.row_digests import compute_checksum, row_code
from pipelines.store.runs import FinishedJob, Manifest, find_manifests, first_readable
from pipelines.store.schemas import CHECKSUM, DS, FINGERPRINT, ITEM_ID, MODEL_VERSION, POLICY, RUN_ID, USER_ID
from pipelines.store.tables import Warehouse, sorted_arrow

TIDY = "tidy_tables"  # upkeep.py's manifests
DISPROVED = "disproved"  # of a run whose lists are not a full night's; see verify_full.py
PLAN = "score_candidates_plan"  # says which run a night was built on; see scoring_plan.py
MARGIN = 2  # entries kept beyond K, in K
MAX_ANCHORS = 28  # nights whose biases every worker holds, 8 bytes an item each
FILE = "tonight.arrow"
STAGED = ("staging", "candidate_history")  # what a run leaves for later nights
ENTRIES = ("anchor", "kept_items", "kept_z", "tau")  # of a staged row
KEPT = (USER_ID, POLICY, *ENTRIES, FINGERPRINT)  # what its checksum covers


# These decide lists and entries: the engine with its UDF, and what counts as a changed candidate.
SCORES = ("pipelines.udfs.score_users", "pipelines.score.incremental")


class BaseRun(NamedTuple):
    """The run that a night starts from."""

    run_id: str
    ds: str
    anchors: list[str]  # runs that scored its users in full, the newest ones
    held: list[str]  # runs whose biases its own candidates carry, in this order


def describe_entries(warehouse: Warehouse, model_version: str, policy: Policy) -> Manifest:
    """What entries must have in common with tonight's to be taken over."""
    k = warehouse.settings.night.k
    return {
        "model_version": model_version,
        "k": k,
        "entries": k * (1 + MARGIN),
        "policy": policy.model_dump(),
        "buckets": warehouse.settings.night.buckets,
        "code": f"{code_digest(*SCORES)} {row_code()}",
    }


def find_base(warehouse: Warehouse, run: Run, entries: Manifest) -> tuple[BaseRun | None, str]:
    """The run to start from, or None; and why."""
    if not warehouse.settings.night.reuse:
        return None, "full night: night.reuse is false"
    runs: dict[tuple[str, int, str], dict[str, Manifest]] = {}
    staged_from = ""
    found = find_manifests(warehouse, "score_candidates", "verify_night", PLAN, DISPROVED, TIDY)
    false, why = find_disproved(found), ""
    for done in found:
        if done.job == TIDY:
            staged_from = max(staged_from, done.manifest["staged_from"])
        elif done.ds < run.ds:
            runs.setdefault((done.ds, _epoch(done.run_id), done.run_id), {})[done.job] = done.manifest
    for (ds, _, run_id), jobs in sorted(runs.items(), reverse=True):
        kept = jobs.get("score_candidates", {}).get("entries")
        if not kept or not jobs.get("verify_night", {}).get("passed") or run_id in false:
            continue
        if ds < staged_from and not is_staged(warehouse, run_id):
            why = why or f"upkeep has dropped what run {run_id} staged"
            break  # and what those before it had staged
        changed = [name for name, value in entries.items() if kept["of"].get(name) != value]
        staging = jobs["score_candidates"]["versions"]["staging"]
        if changed:
            unfit = f"{', '.join(changed)} changed since run {run_id}"
        elif kept["items_left_out"]:
            unfit = f"run {run_id} left damaged items out"
        elif staging < first_readable(warehouse, "staging"):
            unfit = f"a person was forgotten since run {run_id}"
        else:
            anchors = sorted(kept["anchors"])[-MAX_ANCHORS:]
            before = jobs[PLAN]["base"]
            held = BaseRun(*before).anchors if before else []
            return BaseRun(run_id, ds, anchors, held), f"incremental night: from run {run_id}"
        why = why or unfit  # of the newest
    return None, f"full night: {why or 'no earlier certified one'}"


def is_staged(warehouse: Warehouse, run_id: str) -> bool:
    """Whether rows of the run are there, in both tables that a later night needs.

    Upkeep writes down what it is about to drop, pinned and unfinished runs apart; if that is wrong,
    the tables are right.
    """
    mine = F.col(RUN_ID) == run_id
    return all(warehouse.read(name).where(mine).select(RUN_ID).take(1) for name in STAGED)


def find_disproved(done: Iterable[FinishedJob]) -> set[str]:
    """Runs whose lists a full night has disproved, and all that were built on them: what was wrong may live
    on in these.

    Args:
        done: all jobs `PLAN` and `DISPROVED` in question; others are passed over.
    """
    bases, false = {}, set()
    for job in done:
        if job.job == DISPROVED:
            false.add(job.run_id)
        elif job.job == PLAN and job.manifest["base"]:
            bases[job.run_id] = job.manifest["base"][0]
    for run_id in sorted(bases):  # by night, so a base comes before what was built on it
        if bases[run_id] in false:
            false.add(run_id)
    return false


def _epoch(run_id: str) -> int:
    """Of a run that owns a night; -1 of one that only stages."""
    name = run_id.split(".", 1)[1]
    return int(name) if name.isdigit() else -1


def write_candidates(warehouse: Warehouse, run: Run, inputs: NightInputs, base: BaseRun | None) -> None:
    """Write what the run's candidates look like into `candidate_history`, once.

    `since`: the night (days since 1970) when a candidate took its present form; `reference`: the bias then;
    `biases`: of the base's anchors, null where it was none.
    """
    mine = F.col(MODEL_VERSION) == inputs.model_version
    # By the row's bytes, too, as with users: the same inputs on another processor may differ in a last digit.
    form_now = F.hex(F.xxhash64(FINGERPRINT, CHECKSUM)).alias(FINGERPRINT)
    bank = warehouse.read("candidate_bank", inputs.bank).where(mine).select(ITEM_ID, form_now)
    bias = warehouse.read("item_bias", inputs.bias).where(mine & (F.col(DS) == F.lit(run.ds).cast("date")))
    tonight = bias.where(eligible_bit(0) == 1).select(ITEM_ID, "bias").join(bank, ITEM_ID, "inner")
    form = {"since": F.lit(day_number(run.ds)), "reference": F.col("bias")}
    biases: list[Column] = []
    if base:
        before = warehouse.read("candidate_history").where(F.col(RUN_ID) == base.run_id)
        told = (FINGERPRINT, "since", "reference", "bias", "biases")
        before = before.select(ITEM_ID, *(F.col(name).alias(f"was_{name}") for name in told))
        tonight = tonight.join(before, ITEM_ID, "left")
        stands = F.coalesce(F.col(f"was_{FINGERPRINT}") == F.col(FINGERPRINT), F.lit(False))
        form = {name: F.when(stands, F.col(f"was_{name}")).otherwise(new) for name, new in form.items()}
        carried = {anchor: F.get("was_biases", F.lit(i)) for i, anchor in enumerate(base.held)}
        carried[base.run_id] = F.col("was_bias")
        biases = [carried[anchor] for anchor in base.anchors]
    every = F.array(*biases).cast("array<float>")
    rows = tonight.withColumns({RUN_ID: F.lit(run.run_id), **form, "biases": every})
    warehouse.append("candidate_history", rows, txn=(f"candidates-{run.run_id}", 1))


def find_entries(warehouse: Warehouse, base: BaseRun, policy: str) -> DataFrame:
    """Rows of staging that the base's lists can be taken over from.

    The newest version will do: staged rows never change, and where upkeep dropped one its user is scored.
    """
    known = F.col("anchor").isin(base.anchors)  # null for a list that kept nothing
    of_base = (F.col(RUN_ID) == base.run_id) & (F.col(POLICY) == policy) & known
    return warehouse.read("staging").where(of_base)


def take_over(
    warehouse: Warehouse,
    users: DataFrame,
    base: BaseRun | None,
    policy: str,
    select_and_partition: Callable[[DataFrame], DataFrame],
) -> DataFrame:
    """NightChanges's users with the entries of those that did not change since the base; null for the others.

    Args:
        select_and_partition: has laid out the users, see `read_users`.
    """
    if base is None:
        types = {f.name: f.dataType for f in warehouse.schema("staging") if f.name in ENTRIES}
        return users.withColumns({name: F.lit(None).cast(kind) for name, kind in types.items()})
    rows = find_entries(warehouse, base, policy)
    sound = select_and_partition(rows.where(F.col(CHECKSUM) == compute_checksum(KEPT)))
    entries = sound.select(USER_ID, F.col(FINGERPRINT).alias("was"), *ENTRIES)
    # By the user alone: as the rows of `users` lie already.
    same = F.col("was") == F.col(FINGERPRINT)
    joined = users.join(entries, USER_ID, "left")
    return joined.withColumns({name: F.when(same, F.col(name)) for name in ENTRIES}).drop("was")


class ShippedChanges(NamedTuple):
    """What workers must know of an incremental night, on its way; and how many candidates changed."""

    parcel: BroadcastFiles
    candidates: int
    changed: int


def ship_night_changes(warehouse: Warehouse, run: Run, base: BaseRun) -> ShippedChanges:
    """Send lime_model/scoring/incremental/night_changes.py's table to every host."""
    rows = warehouse.read("candidate_history").where(F.col(RUN_ID) == run.run_id)
    biases = [F.get("biases", F.lit(i)).alias(f"bias_{i}") for i in range(len(base.anchors))]
    table = sorted_arrow(rows.select(ITEM_ID, "since", "reference", *biases), ITEM_ID)
    night = day_number(run.ds)
    path = Path(scratch_folder()) / FILE
    names = {day_number(anchor): f"bias_{i}" for i, anchor in enumerate(base.anchors)}
    write_night_changes(path, table, night, names)
    sender = BroadcastSender(warehouse.spark.sparkContext)
    sender.add(FILE, path.read_bytes())
    changed = pc.sum(pc.equal(table["since"], night)).as_py() or 0
    return ShippedChanges(sender.parcel(), len(table), changed)
