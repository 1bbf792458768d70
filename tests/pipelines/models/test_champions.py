"""Test which bundle a night uses after promotions, rollbacks and concurrent decisions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lime_model.bundle import BundleError, load_bundle, save_bundle
from pipelines.models.bundles import bundle_uri, store_folder
from pipelines.models.champions import decisions, find_champion, need_champion, promote, roll_back_model
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import WriteConflict
from synthetic import shop
from tests.conftest import bundle_folder


@pytest.fixture
def two(trained: Warehouse, tmp_path: Path) -> tuple[Warehouse, str, str]:
    """A separate storage with the trained bundle, and with another bundle that is not promoted."""
    shutil.copytree(trained.settings.bundles, tmp_path / "bundles")
    settings = trained.settings.model_copy(update={"bundles": str(tmp_path / "bundles")})
    warehouse = Warehouse(trained.spark, settings)
    bundle = load_bundle(bundle_folder(warehouse, "mha"))
    bundle.model.bias_weight.data += 1.0
    other = save_bundle(bundle, tmp_path / "other")
    store_folder(warehouse.spark, tmp_path / "other", bundle_uri(warehouse, "mha", other))
    return warehouse, need_champion(warehouse, "mha", shop.NIGHT), other


def test_a_past_night_keeps_the_champion_of_its_date(two: tuple[Warehouse, str, str]) -> None:
    warehouse, first, other = two
    assert promote(warehouse, "mha", other, valid_from="2024-05-06", reason="better")
    assert not promote(warehouse, "mha", other, valid_from="2024-05-07", reason="a retry")  # it is already
    found = [
        find_champion(warehouse, "mha", ds) for ds in ("2024-04-30", shop.NIGHT, "2024-05-05", "2024-05-06")
    ]
    assert found == [None, first, first, other]


def test_a_late_decision_about_an_earlier_date_does_not_change_later_nights(
    two: tuple[Warehouse, str, str],
) -> None:
    warehouse, first, other = two
    promote(warehouse, "mha", other, valid_from="2024-05-06", reason="better")
    promote(warehouse, "mha", other, valid_from="2024-05-02", reason="it was better before, too")
    promote(warehouse, "mha", first, valid_from="2024-05-04", reason="a backfill of that week")
    found = [find_champion(warehouse, "mha", f"2024-05-0{day}") for day in (1, 3, 5, 6, 9)]
    assert found == [first, other, first, other, other]


def test_a_model_goes_back_to_the_previous_bundle_and_forward_again(two: tuple[Warehouse, str, str]) -> None:
    warehouse, first, other = two
    with pytest.raises(BundleError, match="nothing to go back to"):
        roll_back_model(warehouse, "mha", "2024-05-06", "too early", None)
    promote(warehouse, "mha", other, valid_from="2024-05-06", reason="better")
    assert roll_back_model(warehouse, "mha", "2024-05-08", "worse after all", None) == first
    assert [find_champion(warehouse, "mha", f"2024-05-0{day}") for day in (5, 7, 8)] == [first, other, first]
    with pytest.raises(
        BundleError, match=rf"{other} was taken back already from night 2024-05-08 on .* --to$"
    ):
        roll_back_model(warehouse, "mha", "2024-05-08", "worse after all", None)  # the same command again
    assert roll_back_model(warehouse, "mha", "2024-05-09", "no, better", other) == other
    reasons = [decision.reason for decision in decisions(warehouse, "mha")]
    assert reasons == ["trained by train_model", "better", "worse after all", "no, better"]


def test_a_bundle_never_serves_a_night_before_its_cut_off(two: tuple[Warehouse, str, str]) -> None:
    warehouse, _, other = two
    with pytest.raises(
        BundleError, match=r"trained on events before 2024-05-01 and can't serve night 2024-04-20"
    ):
        promote(warehouse, "mha", other, valid_from="2024-04-20", reason="leaks")
    with pytest.raises(BundleError, match=r"no bundle at .*0123"):
        promote(warehouse, "mha", "0123", valid_from="2024-05-20", reason="not there")


def test_the_second_of_two_concurrent_decisions_fails(
    two: tuple[Warehouse, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other writer commits after this one has read the decisions and before it writes."""
    warehouse, first, other = two
    append = Warehouse.append

    def rival(self: Warehouse, name: str, *rest: object, **more: object) -> None:
        monkeypatch.setattr(Warehouse, "append", append)
        promote(warehouse, "mha", other, valid_from="2024-05-08", reason="the rival's")
        append(self, name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Warehouse, "append", rival)
    with pytest.raises(WriteConflict, match="another decision about model 'mha' came first"):
        promote(warehouse, "mha", other, valid_from="2024-05-07", reason="ours")
    assert [d.reason for d in decisions(warehouse, "mha")] == ["trained by train_model", "the rival's"]
    assert find_champion(warehouse, "mha", "2024-05-07") == first
