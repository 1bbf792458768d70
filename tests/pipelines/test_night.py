"""Full nights over the shop: what is published, which errors stop a night, and which lists remain."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lime_model.bundle import BundleError, load_bundle, save_bundle
from lime_model.scoring import native
from pipelines.build.candidate_bank import build_candidate_bank
from pipelines.build.link_states import build_link_states
from pipelines.learn.train import train_models
from pipelines.models.bundles import bundle_uri, scratch_folder, store_folder
from pipelines.models.champions import need_champion, promote
from pipelines.models.pinned_inputs import NightInputs
from pipelines.night import STEPS
from pipelines.publish.audits import AuditFailed
from pipelines.publish.publish import publish_recommendations
from pipelines.publish.verify_night import CertificateFailed, verify_night
from pipelines.schemas import TABLES
from pipelines.score.stage import score_candidates
from pipelines.settings.base import SettingsError
from pipelines.settings.night import Policy
from pipelines.steps import Job
from pipelines.store.frames import local_rows
from pipelines.store.leases import Run, StaleRun, acquire_lease, check_lease
from pipelines.store.manifests import BankManifest, ScoreManifest, StatesManifest
from pipelines.store.runs import find_manifest, need_manifest, record
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable, WriteConflict
from synthetic import shop
from tests.conftest import bundle_folder, copy_log
from tests.host import HAS_NATIVE
from tests.nights import SCORED, full_night, lists_of, point_at, staged_of, with_night

RERUN = "2024-05-02"  # a night that several runs compute
NAN = b"\x00\x00\xc0\x7f"


@pytest.fixture(scope="module")
def policies(trained: Warehouse) -> tuple[Warehouse, Run, dict[str, Policy]]:
    """Stage one run under several policies at once, with k = 10."""
    wanted = {
        "all": Policy(),
        "new": Policy(name="new", exclude_seen="all"),
        "week": Policy(name="week", exclude_seen=7),
        "kind": Policy(name="kind", eligible="kind = 'kind-1' OR item_id = 119"),
        "none": Policy(name="none", eligible="false"),
    }
    run = Run(shop.NIGHT, "policies")
    build_candidate_bank(trained, run, "xor", list(wanted.values()))
    build_link_states(trained, run, "xor")
    score_candidates(trained, run, list(wanted.values()))
    return trained, run, wanted


def test_every_user_has_k_items_in_order(published: tuple[Warehouse, Run]) -> None:
    lists = lists_of(published[0])
    assert sorted(lists) == list(range(shop.USERS))
    for candidates in lists.values():
        assert len(candidates) == 10
        assert len({item for item, _ in candidates}) == 10
        assert candidates == sorted(candidates, key=lambda c: (-c[1], c[0]))
        assert np.isfinite([score for _, score in candidates]).all()


def test_the_commit_has_the_manifest_in_its_metadata(published: tuple[Warehouse, Run]) -> None:
    warehouse, run = published
    commits = DeltaTable(warehouse.path("recommendations")).history()
    manifests = [json.loads(commit["userMetadata"]) for commit in commits]
    mine: list[dict[str, Any]] = [found for found in manifests if found["run_id"] == run.run_id]
    assert len(mine) == 1
    manifest = mine[0]
    assert manifest["certificate"]["passed"] is True
    assert manifest["certificate"]["users"] >= 24
    assert manifest["certificate"]["strata"]["cold"] == len(shop.COLD)
    assert manifest["certificate"]["worst_relative_error"] < 1e-4
    assert manifest["scoring"]["pairs"] == shop.USERS * (shop.ITEMS + 1)
    assert manifest["backend"]["backend"] == ("native" if HAS_NATIVE else "tiled")
    assert "CPU was asked for" in manifest["backend"]["why"]


def test_the_model_learned_the_shop(published: tuple[Warehouse, Run]) -> None:
    """User u likes kind u % 6, so most items of the list must be of that kind."""
    lists = lists_of(published[0])
    warm = [user for user in lists if user not in shop.COLD]
    share = np.mean([[item % shop.KINDS == user % shop.KINDS for item, _ in lists[user]] for user in warm])
    assert share > 0.7


def test_a_retry_changes_nothing(published: tuple[Warehouse, Run]) -> None:
    warehouse, run = published
    before = DeltaTable(warehouse.path("recommendations")).version()
    assert acquire_lease(warehouse, run.ds, run.key) == run
    assert STEPS[Job.PUBLISH_RECOMMENDATIONS](warehouse, run).reused is True
    assert DeltaTable(warehouse.path("recommendations")).version() == before


def test_each_policy_gives_k_items_if_there_are_k(
    policies: tuple[Warehouse, Run, dict[str, Policy]],
) -> None:
    warehouse, run, _ = policies
    log = (
        warehouse.read("events").where(F.col("ds") < shop.NIGHT).select("user_id", "item_id", "ds").collect()
    )
    seen: dict[int, set[int]] = {user: set() for user in range(shop.USERS)}
    week: dict[int, set[int]] = {user: set() for user in range(shop.USERS)}
    for user, item, day in log:
        seen[user].add(item)
        if str(day) >= "2024-04-24":
            week[user].add(item)
    lists = {name: staged_of(warehouse, run, name) for name in ("all", "new", "week", "kind", "none")}
    for user in range(shop.USERS):
        assert [len(lists[p][user]) for p in ("all", "new", "week", "kind", "none")] == [10, 10, 10, 10, 0]
        assert not {item for item, _ in lists["new"][user]} & seen[user]
        assert not {item for item, _ in lists["week"][user]} & week[user]
        assert all(item % shop.KINDS == 1 or item == 119 for item, _ in lists["kind"][user])
        # Exclusion removes items and changes nothing else: the other items keep their order and scores.
        kept = [c for c in lists["all"][user] if c[0] not in seen[user]]
        assert lists["new"][user][: len(kept)] == kept
    assert any({item for item, _ in lists["all"][u]} & seen[u] for u in range(shop.USERS))


def test_shortfalls_are_reported(policies: tuple[Warehouse, Run, dict[str, Policy]]) -> None:
    warehouse, run, _ = policies
    report = find_manifest(warehouse, run.run_id, ScoreManifest)
    assert report is not None
    assert report.policies["none"].users_with_shortfall == shop.USERS
    assert report.policies["all"].users_with_shortfall == 0


def test_k_larger_than_the_corpus_lists_every_item(published: tuple[Warehouse, Run]) -> None:
    wide = with_night(published[0], k=500)
    run = build_under(wide, published[1], "wide")
    score_candidates(wide, run, [Policy()])
    rows = wide.read("staging").where(F.col("run_id") == run.run_id).collect()
    assert {(len(row["candidates"]), row["shortfall"]) for row in rows} == {(121, 379)}
    listed = {c["item_id"] for row in rows for c in row["candidates"]}
    assert {shop.FEATURELESS, shop.UNLISTED} <= listed  # one has null features, one is only in events


def test_all_backends_and_partitionings_give_equal_bits(published: tuple[Warehouse, Run]) -> None:
    warehouse, built = published
    others = ["reference", *(["native", "native-fp32"] if HAS_NATIVE else [])]
    if not native.why_not("avx512-bf16"):
        others.append("native-bf16")
    for units, backend in enumerate(others, 3):
        other = with_night(warehouse, backend=backend, units_per_commit=units)
        run = build_under(other, built, f"by-{backend}")
        manifest = score_candidates(other, run, [other.settings.night.policy])
        assert manifest.backend.backend == backend
        assert staged_of(other, run, "all") == lists_of(warehouse)
        assert verify_night(other, run).passed


def build_under(warehouse: Warehouse, built: Run, key: str, run: Run | None = None) -> Run:
    """Give the bank and states of a run to another one, which holds no lease if it is not given."""
    run = run or Run(built.ds, key)
    for kind in (BankManifest, StatesManifest):
        record(warehouse, run.run_id, run.ds, need_manifest(warehouse, built, kind))
    return run


def test_a_retry_groups_the_units_as_the_first_attempt_did(
    published: tuple[Warehouse, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part of the night is staged when the settings change the number of units in a commit."""
    warehouse, built = published
    policy, append = warehouse.settings.night.policy, Warehouse.append
    fine, coarse = (with_night(warehouse, units_per_commit=size) for size in (1, 4))
    run = build_under(fine, built, "recut")

    def die(self: Warehouse, name: str, frame: DataFrame, **more: Any) -> None:
        if name == "staging" and self.read("staging").where(F.col("run_id") == run.run_id).take(1):
            raise KeyboardInterrupt
        append(self, name, frame, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Warehouse, "append", die)
        with pytest.raises(KeyboardInterrupt):
            score_candidates(fine, run, [policy])
    assert 0 < len(staged_of(fine, run, "all")) < shop.USERS
    for changed, name in (
        (with_night(warehouse, k=warehouse.settings.night.k + 1), "entries, k"),
        (with_night(warehouse, policy=policy.model_copy(update={"exclude_seen": 3})), "policy"),
    ):
        with pytest.raises(SettingsError, match=f"{name} changed since its first attempt.*--run-key"):
            score_candidates(changed, run, [changed.settings.night.policy])
    manifest = score_candidates(coarse, run, [policy]).policies["all"]
    assert (manifest.commits, manifest.commits_reused) == (4, 1)
    assert staged_of(coarse, run, "all") == lists_of(warehouse)


def test_a_group_that_an_older_attempt_stages_meanwhile_is_not_staged_again(
    published: tuple[Warehouse, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, built = published
    append = Warehouse.append
    run = build_under(warehouse, built, "meanwhile")

    def rival(self: Warehouse, name: str, frame: DataFrame, **more: Any) -> None:
        append(self, name, frame, **more)
        if name == "staging":
            raise WriteConflict("table staging: another writer was faster")

    monkeypatch.setattr(Warehouse, "append", rival)
    score_candidates(warehouse, run, [warehouse.settings.night.policy])
    assert staged_of(warehouse, run, "all") == lists_of(warehouse)


def test_a_night_before_all_events_is_scored_and_fails_its_audits(trained: Warehouse, tmp_path: Path) -> None:
    shop.write_shop(tmp_path / "shop" / "raw")
    warehouse = copy_log(trained, tmp_path / "shop")
    with pytest.raises(BundleError, match=r"no bundle for night 2024-03-01 .*first is valid from 2024-05-01"):
        full_night(warehouse, "too-early", shop.FIRST)
    leaking = need_champion(warehouse, "mha", shop.NIGHT)
    row = {
        "number": 2,
        "model": "mha",
        "valid_from": date.fromisoformat(shop.FIRST),
        "model_version": leaking,
    }
    # The row is written directly, because `promote` refuses a bundle that has seen the night.
    warehouse.append("champions", local_rows(warehouse.spark, [row], warehouse.schema("champions")))
    run = acquire_lease(warehouse, shop.FIRST, "empty")
    with pytest.raises(BundleError, match=r"events before 2024-05-01 and has seen what night 2024-03-01 is"):
        STEPS[Job.BUILD_CANDIDATE_BANK](warehouse, run)
    bundle = load_bundle(bundle_folder(warehouse, "mha"))
    bundle.model.config = dataclasses.replace(bundle.config, cutoff_ds=shop.FIRST)
    version = save_bundle(bundle, tmp_path / "early")
    store_folder(warehouse.spark, tmp_path / "early", bundle_uri(warehouse, "mha", version))
    promote(warehouse, "mha", version, valid_from=shop.FIRST, reason="of before all events")
    for name in ("build_candidate_bank", "build_link_states", "score_candidates", "verify_night"):
        STEPS[name](warehouse, run)
    with pytest.raises(AuditFailed, match=r"item_coverage is 0, limit >= 0\.001"):
        STEPS[Job.AUDIT_RECOMMENDATIONS](warehouse, run)  # no user is known yet, so nothing is published
    assert not warehouse.exists("recommendations")
    manifest = find_manifest(warehouse, run.run_id, StatesManifest)
    assert manifest is not None
    assert (manifest.users, manifest.events) == (0, 0)


def test_a_run_keeps_the_log_and_the_model_that_it_started_with(trained: Warehouse, tmp_path: Path) -> None:
    """Between the builds of states and bank, the log changes and another bundle is promoted."""
    shop.write_shop(tmp_path / "raw")
    warehouse = copy_log(trained, tmp_path)
    run = acquire_lease(warehouse, shop.NIGHT, "steady")
    begun = STEPS[Job.INGEST_EVENTS](warehouse, run)
    STEPS[Job.BUILD_LINK_STATES](warehouse, run)
    warehouse.delta("events").update("user_id = 0 AND item_id = 777", {"session_id": "'corrected'"})
    bundle = load_bundle(bundle_folder(warehouse, "mha"))
    bundle.model.bias_weight.data += 1.0
    version = save_bundle(bundle, tmp_path / "other")
    store_folder(warehouse.spark, tmp_path / "other", bundle_uri(warehouse, "mha", version))
    promote(warehouse, "mha", version, valid_from=shop.NIGHT, reason="while a night runs")
    STEPS[Job.BUILD_CANDIDATE_BANK](warehouse, run)
    inputs = NightInputs.of(warehouse, run)
    assert inputs.events == begun.versions["events"] < warehouse.newest("events")
    assert inputs.model_version == begun.model_version != version


@pytest.fixture(scope="module")
def overtaken(trained: Warehouse) -> tuple[Warehouse, Run, Run]:
    """Certify and audit a run of a night, and let a second run publish the night before the first does."""
    old = acquire_lease(trained, RERUN, "old")
    for name in (*SCORED, "audit_recommendations"):
        STEPS[name](trained, old)
    return trained, old, full_night(trained, "new", RERUN)


def test_a_rerun_gives_the_same_lists_and_fences_the_first(overtaken: tuple[Warehouse, Run, Run]) -> None:
    warehouse, old, new = overtaken
    assert new.epoch == (old.epoch or 0) + 1
    assert staged_of(warehouse, old, "all") == lists_of(warehouse, RERUN)
    with pytest.raises(StaleRun, match=r"run 'old' \(epoch 1\) was overtaken by run 'new' \(epoch 2\)"):
        check_lease(warehouse, old)
    with pytest.raises(StaleRun, match="overtaken"):
        acquire_lease(warehouse, RERUN, "old")


def test_delta_itself_refuses_a_stale_publisher(
    overtaken: tuple[Warehouse, Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old run has passed its lease check when the new run publishes."""
    warehouse, old, new = overtaken
    expected = lists_of(warehouse, RERUN)
    monkeypatch.setattr("pipelines.publish.publish.check_lease", lambda warehouse, run: run)
    with pytest.raises(StaleRun, match=rf"a newer epoch published {new.run_id}; its lists are in force"):
        publish_recommendations(warehouse, old)
    assert lists_of(warehouse, RERUN) == expected


def test_a_corrupt_staged_row_fails_the_certificate_and_keeps_the_last_lists(
    overtaken: tuple[Warehouse, Run, Run],
) -> None:
    warehouse, _, new = overtaken
    expected = lists_of(warehouse, RERUN)
    bad = build_under(warehouse, new, "bad", acquire_lease(warehouse, RERUN, "bad"))
    STEPS[Job.SCORE_CANDIDATES](warehouse, bad)
    higher = F.transform(
        "candidates",
        lambda c: F.struct(
            c["item_id"].alias("item_id"), (c["score"] + F.lit(0.01).cast("float")).alias("score")
        ),
    )
    warehouse.delta("staging").update(F.col("run_id") == bad.run_id, {"candidates": higher})
    point_at(warehouse, bad, ScoreManifest, "staging")
    with pytest.raises(
        CertificateFailed, match=r"certified users fail.*a score is off by.*nothing was published"
    ):
        verify_night(warehouse, bad)
    with pytest.raises(MissingTable, match=r"verify_night has not finished; run jobs/verify_night.py"):
        publish_recommendations(warehouse, bad)
    assert lists_of(warehouse, RERUN) == expected


def test_a_bank_of_another_model_is_refused(trained: Warehouse) -> None:
    run = Run(shop.NIGHT, "mixed")
    build_candidate_bank(trained, run, "mha", [Policy()])
    build_link_states(trained, run, "xor")
    with pytest.raises(BundleError, match=r"candidate bank is of model .* link states are of"):
        score_candidates(trained, run, [Policy()])


def test_a_step_that_runs_too_early_names_the_missing_step(trained: Warehouse) -> None:
    run = Run(shop.NIGHT, "hasty")
    with pytest.raises(
        MissingTable, match=r"build_candidate_bank has not finished; run jobs/build_candidate_bank.py"
    ):
        score_candidates(trained, run, [Policy()])
    with pytest.raises(StaleRun, match="holds no lease"):
        publish_recommendations(trained, run)


def test_an_eligibility_expression_must_fit_the_items(trained: Warehouse) -> None:
    with pytest.raises(SettingsError, match=r"does not fit the item columns .*colour"):
        build_candidate_bank(trained, Run(shop.NIGHT, "colour"), "mha", [Policy(eligible="colour = 'red'")])


def test_a_damaged_bundle_in_the_store_stops_the_night(trained: Warehouse, tmp_path: Path) -> None:
    shutil.copytree(trained.settings.bundles, tmp_path / "bundles")
    settings = trained.settings.model_copy(update={"bundles": str(tmp_path / "bundles")})
    other = Warehouse(trained.spark, settings)
    file = bundle_folder(other, "mha") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    shutil.rmtree(bundle_folder(other, "xor"))
    with pytest.raises(BundleError, match=r"model.safetensors: SHA-256 is"):
        build_link_states(other, Run(shop.NIGHT, "damaged"), "mha")
    with pytest.raises(BundleError, match=r"no bundle at .*lime train"):
        build_link_states(other, Run(shop.NIGHT, "absent"), "xor")


def test_policies_that_changed_after_the_bank_was_built_are_refused(published: tuple[Warehouse, Run]) -> None:
    warehouse, built = published
    run = build_under(warehouse, built, "other-policy")
    with pytest.raises(SettingsError, match=r"the bank was built for eligibility .*new --run-key"):
        score_candidates(warehouse, run, [Policy(eligible="item_id > 3")])


def test_a_damaged_bundle_is_trained_again(trained: Warehouse, tmp_path: Path) -> None:
    """The error says to run the training job, so the job must not fail because of the same file."""
    settings = trained.settings.model_copy(update={"bundles": f"file:{tmp_path}"})
    other = Warehouse(trained.spark, settings)
    train_models(other, shop.NIGHT, ["mha"])
    assert train_models(other, shop.NIGHT, ["mha"])["mha"].reused
    weights = bundle_folder(other, "mha") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    again = train_models(other, shop.NIGHT, ["mha"])["mha"]
    assert not again.reused
    assert load_bundle(bundle_folder(other, "mha")).version == again.model_version


def test_lists_do_not_depend_on_how_the_bank_is_split_into_shards(
    published: tuple[Warehouse, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, run = published
    monkeypatch.setattr("pipelines.score.packed_bank.SHARD_BYTES", 4_000)
    cut = build_under(warehouse, run, "cut")
    score_candidates(warehouse, cut, [warehouse.settings.night.policy])
    newest = max(Path(scratch_folder()).glob("lime-*-*/"), key=lambda folder: folder.stat().st_ctime)
    assert len(list(newest.glob("bank-*.cells"))) > 2
    assert staged_of(warehouse, cut, warehouse.settings.night.policy.name) == lists_of(warehouse)


@pytest.fixture(scope="module")
def damaged(trained: Warehouse) -> tuple[Warehouse, Run]:
    """Build a night and damage it.

    The state of user 5 gets a NaN, that of user 6 a flipped bit that only the checksum finds, item 7 a NaN,
    and item 8 another width.
    """
    run = Run(shop.NIGHT, "damaged")
    bank = build_candidate_bank(trained, run, "mha", [Policy()])
    build_link_states(trained, run, "mha")
    mine = F.col("model_version") == bank.model_version
    for table, key, column, faults in (
        ("user_link_states", "user_id", "state", {5: NAN, 6: b"\x01"}),
        ("candidate_bank", "item_id", "dot", {7: NAN, 8: b""}),
    ):
        for row, fault in faults.items():
            here = mine & (F.col(key) == row)
            raw = bytearray(trained.read(table).where(here).select(column).collect()[0][0])
            raw[20:24] = bytes([raw[20] ^ 1, *raw[21:24]]) if fault == b"\x01" else fault
            trained.delta(table).update(here, {column: F.lit(raw)})
    point_at(trained, run, StatesManifest, "user_link_states")
    point_at(trained, run, BankManifest, "candidate_bank")
    return trained, run


def test_a_damaged_row_fails_the_night_in_one_line(damaged: tuple[Warehouse, Run]) -> None:
    warehouse, run = damaged
    with pytest.raises(
        BundleError, match=r"^candidate bank: 2 of \d+ rows are damaged, .* item 7: dot holds NaN"
    ):
        score_candidates(warehouse, run, [Policy()])


def test_a_row_that_is_missing_from_the_bank_counts_as_damaged(trained: Warehouse) -> None:
    run = Run(shop.NIGHT, "gone")
    bank = build_candidate_bank(trained, run, "mha", [Policy()])
    build_link_states(trained, run, "mha")
    mine = F.col("model_version") == bank.model_version
    trained.delta("candidate_bank").update(mine & (F.col("item_id") == 9), {"item_id": F.lit(123_456)})
    point_at(trained, run, BankManifest, "candidate_bank")
    with pytest.raises(BundleError, match=r"1 of \d+ rows are damaged, .* item 9: link_weights is missing"):
        score_candidates(trained, run, [Policy()])


def test_rows_that_could_not_be_computed_are_computed_again(trained: Warehouse) -> None:
    before = Run(shop.NIGHT, "empty")
    version = build_candidate_bank(trained, before, "mha", [Policy()]).model_version
    build_link_states(trained, before, "mha")
    for table, key in (
        ("candidate_bank", "item_id"), ("user_link_states", "user_id"),
    ):  # fmt: skip
        payload = TABLES[table].checksummed
        column = payload[-1]
        empty = {
            column: F.lit(b""),
            "checksum": F.xxhash64(*(F.lit(b"") if n == column else n for n in payload)),
        }
        trained.delta(table).update((F.col("model_version") == version) & (F.col(key) == 11), empty)
    point_at(trained, before, StatesManifest, "user_link_states")
    run = Run(shop.NIGHT, "filled")
    assert build_candidate_bank(trained, run, "mha", [Policy()]).encoded == 1
    assert build_link_states(trained, run, "mha").recomputed == 1


def test_damaged_rows_are_left_out_with_a_reason(damaged: tuple[Warehouse, Run]) -> None:
    warehouse, run = damaged
    tolerant = with_night(warehouse, max_damaged_share=0.06, certificate_users=shop.USERS)
    report = score_candidates(tolerant, run, [Policy()])
    assert report.items_left_out == 2
    assert report.policies["all"].users_left_out == 2
    reasons = {row["item_id"]: row["reason"] for row in tolerant.read("bank_quarantine").collect()}
    assert reasons.keys() == {7, 8}
    assert "NaN" in reasons[7]
    assert "the model wants" in reasons[8]
    rows = tolerant.read("staging").where(F.col("run_id") == run.run_id).collect()
    faults = {row["user_id"]: row for row in rows if row["fault"] is not None}
    assert faults.keys() == {5, 6}
    assert "NaN or infinity" in faults[5]["fault"]
    assert "checksum" in faults[6]["fault"]
    assert [(len(row["candidates"]), row["shortfall"]) for row in faults.values()] == [(0, 10)] * 2
    assert not {7, 8} & {c["item_id"] for row in rows for c in row["candidates"]}
    assert verify_night(tolerant, run).passed  # the other users' lists are right without those items


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (0.02, r"users: 2 of 40 are damaged, night.max_damaged_share is 2.00%; the first: .*user_id=5"),
        (0.01, r"candidate bank: rows: 2 of \d+ are damaged, .* is 1.00%; the first: \(7, 'dot"),
    ],
)
def test_more_damage_than_the_settings_allow_fails_the_night(
    damaged: tuple[Warehouse, Run], limit: float, message: str
) -> None:
    warehouse, run = damaged
    again = Run(run.ds, f"damaged-{limit}")
    for kind in (BankManifest, StatesManifest):
        record(warehouse, again.run_id, again.ds, need_manifest(warehouse, run, kind))
    with pytest.raises(BundleError, match=message):
        score_candidates(with_night(warehouse, max_damaged_share=limit), again, [Policy()])
