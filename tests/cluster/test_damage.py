"""Damage and conflicts, and the run after them: a flipped byte of the bank, a corrupt state, another writer.

Each happens in a night of the shop in this process. The run that follows gives the lists of an undisturbed
night, bit for bit.
"""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyspark.sql import DataFrameWriter
from pyspark.sql import functions as F

from lime_model.bundle import BundleError
from pipelines.models.bundles import scratch_folder
from pipelines.night import STEPS
from pipelines.score.broadcast_files import BroadcastError, BroadcastSender
from pipelines.steps import Job
from pipelines.store.leases import Run, acquire_lease
from pipelines.store.manifests import StatesManifest
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import WriteConflict
from synthetic import shop
from tests.cluster.standalone import PATIENCE
from tests.conftest import copy_log
from tests.nights import Lists, full_night, lists_of, point_at, staged_of, with_night

pytestmark = pytest.mark.faults
BUILD, REST = (
    ("build_candidate_bank", "build_link_states"),
    ("verify_night", "audit_recommendations", "publish_recommendations"),
)


@pytest.fixture(scope="module")
def undisturbed(trained: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Lists]:
    """Return a separate shop after one complete night, and its lists."""
    warehouse = copy_log(trained, tmp_path_factory.mktemp("damage"))
    full_night(warehouse, "undisturbed")
    return warehouse, lists_of(warehouse)


def build(warehouse: Warehouse, key: str) -> Run:
    """Start a run, and build its bank and states."""
    run = acquire_lease(warehouse, shop.NIGHT, key)
    for name in BUILD:
        STEPS[name](warehouse, run)
    return run


def score(warehouse: Warehouse, run: Run) -> None:
    """Run the scoring step."""
    STEPS[Job.SCORE_CANDIDATES](warehouse, run)


def publish(warehouse: Warehouse, run: Run) -> Lists:
    """Certify and publish the lists; return them."""
    for name in REST:
        STEPS[name](warehouse, run)
    return lists_of(warehouse)


def test_a_flipped_byte_in_a_chunk_of_the_bank_is_refused_and_a_rerun_completes(
    undisturbed: tuple[Warehouse, Lists], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, expected = undisturbed
    run, add = build(warehouse, "flipped"), BroadcastSender.add

    def damage(self: BroadcastSender, file: str, data: bytes) -> None:
        add(self, file, data)
        if not data:
            return
        path = Path(self.chunks[-1].broadcast._path)  # type: ignore[arg-type]
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)

    for unpacked in Path(scratch_folder()).glob(f"lime-{warehouse.spark.sparkContext.applicationId}-*/"):
        shutil.rmtree(unpacked)  # they hold the same bank, from an earlier night of this process
    with monkeypatch.context() as patch:
        patch.setattr(BroadcastSender, "add", damage)
        with pytest.raises(BroadcastError, match=r"^a chunk of .* damaged \(SHA-256.*Run the job again"):
            score(warehouse, run)
    assert lists_of(warehouse) == expected  # readers still get the lists of the night before
    score(warehouse, run)
    assert publish(warehouse, run) == expected


@pytest.mark.parametrize(("table", "column"), [("user_link_states", "state"), ("user_memory", "bucket")])
def test_a_corrupt_row_is_named_or_left_out_and_built_again(
    undisturbed: tuple[Warehouse, Lists], table: str, column: str
) -> None:
    warehouse, expected = undisturbed
    run = build(warehouse, f"corrupt-{column}")
    mine = F.col("user_id") == 5
    if column == "state":
        raw = bytearray(warehouse.read(table).where(mine).select(column).collect()[0][0])
        raw[20] ^= 1
        warehouse.delta(table).update(mine, {column: F.lit(raw)})
    else:  # move the row to another work unit than the user's state
        warehouse.delta(table).update(mine, {column: F.pmod(F.col(column) + 1, F.lit(4))})
    point_at(warehouse, run, StatesManifest, table)
    with pytest.raises(BundleError, match=r"^user 5: its state or memory is not what was written"):
        score(warehouse, run)
    tolerant = with_night(warehouse, max_damaged_share=0.05)
    score(tolerant, run)
    others = staged_of(tolerant, run, "all")
    assert others.pop(5) == []
    assert others == {user: items for user, items in expected.items() if user != 5}
    again = build(warehouse, f"rebuilt-{column}")
    score(warehouse, again)
    assert publish(warehouse, again) == expected


def test_one_of_two_runs_that_build_the_same_states_fails_and_its_rerun_completes(
    undisturbed: tuple[Warehouse, Lists], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, expected = undisturbed
    earlier = build(warehouse, "earlier")
    warehouse.delta("user_link_states").update(
        set={"fingerprint": F.lit("of other code")}
    )  # all states must be built again
    point_at(warehouse, earlier, StatesManifest, "user_link_states")
    runs = [Run(shop.NIGHT, "one"), acquire_lease(warehouse, shop.NIGHT, "two")]
    for run in runs:
        STEPS[Job.BUILD_CANDIDATE_BANK](warehouse, run)
    together, save = threading.Barrier(2), Warehouse._save

    def wait(self: Warehouse, name: str, writer: DataFrameWriter) -> None:
        if name == "user_link_states":
            together.wait(timeout=PATIENCE)
        save(self, name, writer)

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(Warehouse, "_save", wait)
        builds = [pool.submit(STEPS[Job.BUILD_LINK_STATES], warehouse, run) for run in runs]
        errors = [build.exception(timeout=PATIENCE) for build in builds]
    (conflict,) = (error for error in errors if error)
    assert isinstance(conflict, WriteConflict)
    assert str(conflict).startswith("table user_link_states: another writer changed the same rows")
    assert lists_of(warehouse) == expected  # readers still get the lists of the night before
    run = runs[1]
    STEPS[Job.BUILD_LINK_STATES](warehouse, run)
    score(warehouse, run)
    assert publish(warehouse, run) == expected
