"""A mistake is reported before the lease is taken, so the run that holds the night continues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lime_model.bundle import BundleError
from lime_model.errors import LimeError
from pipelines.models.champions import roll_back_model
from pipelines.night_checks import check_eligible, check_plan, check_steps
from pipelines.operate.find_person import NoSuchId, find_person
from pipelines.operate.pins import NothingToPin, pin_night
from pipelines.operate.rollback import plan_rollback
from pipelines.publish.night_state import NothingToRollBack
from pipelines.settings.base import SettingsError
from pipelines.settings.checks import check_models, check_night
from pipelines.settings.night import Policy
from pipelines.settings.settings import load_settings
from pipelines.steps import NEEDS, NIGHT_STEPS
from pipelines.store.leases import BadRunKey, acquire_lease, check_lease
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import MissingTable
from synthetic import shop

NIGHT = "2024-05-02"
BUILD = ["build_candidate_bank", "build_link_states"]


def with_night(warehouse: Warehouse, **night: Any) -> Warehouse:
    """Return the same tables under other settings of the night."""
    settings = warehouse.settings.night.model_copy(update=night)
    return Warehouse(warehouse.spark, warehouse.settings.model_copy(update={"night": settings}))


MISTAKES: dict[str, tuple[type[LimeError], str, Callable[[Warehouse], object]]] = {
    "a typo in eligible": (
        SettingsError, r"policy all: its rule eligible: 'prise = 1' does not fit the item.*`prise` cannot",
        lambda w: check_steps(with_night(w, policy=Policy(eligible="prise = 1")), NIGHT, "wrong", BUILD),
    ),
    "a model without a bundle": (
        BundleError, r"model 'new' has no bundle for night 2024-05-02",
        lambda w: check_steps(with_night(w, model="new"), NIGHT, "wrong", BUILD),
    ),
    "a model without a bundle, seen by ingest of a night that is taken": (
        BundleError, r"model 'new' has no bundle for night 2024-05-02",
        lambda w: check_steps(with_night(w, model="new"), NIGHT, "wrong", ["ingest_events"]),
    ),
    "a night before the first champion": (
        BundleError, r"first is valid from 2024-05-01; train one with lime train --ds 2024-04-01 --model mha",
        lambda w: check_steps(w, "2024-04-01", "wrong", BUILD),
    ),
    "a typo in the run key": (
        MissingTable, r"run 'wrong': build_candidate_bank has not finished.*whether this is the --run-key",
        lambda w: check_steps(w, NIGHT, "wrong", ["score_candidates"]),
    ),
    "steps in the wrong order": (
        MissingTable, r"score_candidates has not finished, and verify_night reads what it writes",
        lambda w: check_steps(w, NIGHT, "wrong", [*BUILD, "verify_night", "score_candidates"]),
    ),
    "a forecast of a typo": (
        SettingsError, r"Syntax error at or near",
        lambda w: check_plan(with_night(w, policy=Policy(eligible="kind = = 1")), NIGHT),
    ),
    "going back on a night that was never published": (
        NothingToRollBack, r"night 2024-05-02: ", lambda w: plan_rollback(w, NIGHT),
    ),
    "going back to an unknown bundle": (
        BundleError, r"model 'mha' has no bundle '../xor' at .*; it has \['",
        lambda w: roll_back_model(w, "mha", NIGHT, "a test of the test", "../xor"),
    ),
    "pinning a night that was never published": (
        NothingToPin, r"night 2024-05-02: ", lambda w: pin_night(w, NIGHT, "a test"),
    ),
    "a run key that is no name": (
        BadRunKey, r"the run key .* choose another one$", lambda w: acquire_lease(w, NIGHT, "x' OR 'a'='a"),
    ),
}  # fmt: skip


def test_no_mistake_takes_the_night_from_the_run_that_holds_it(trained: Warehouse) -> None:
    run = acquire_lease(trained, NIGHT, "right")
    before = {name: trained.newest(name) for name in ("leases", "runs", "champions", "recommendations")}
    for name, (error, message, work) in MISTAKES.items():
        with pytest.raises(error, match=message):
            work(trained)
        again = Warehouse(trained.spark, trained.settings)  # another process has no cached versions
        assert {table: again.newest(table) for table in before} == before, name
    assert check_lease(Warehouse(trained.spark, trained.settings), run) == run
    check_steps(trained, NIGHT, "other", [step for step in NIGHT_STEPS if step != "ingest_events"])
    check_steps(trained, NIGHT, "right", ["ingest_events"])
    assert list(NEEDS) == list(NIGHT_STEPS)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("price", r'of type "STRING" is not a boolean'),
        ("", "Syntax error|empty"),
        ("kind = 'a", "Syntax error|unclosed|parse"),
        ("count(1) > 3", "contains invalid expressions: count"),
        ("explode(array(true))", "generator is not supported"),
        ("row_number() over (order by item_id) < 9", "window functions|invalid expressions"),
        ("nothing(kind)", "nothing"),
        ("rand() < 0.5", "would say something else each time"),
        ("item_id = uuid()", "would say something else each time"),
        ("true; drop table x", "Syntax error"),
    ],
)
def test_a_rule_that_is_no_condition_on_one_item_is_refused(
    empty_shop: Warehouse, rule: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=rf"(?s)^policy odd: its rule eligible: .*(?:{message})"):
        check_eligible(empty_shop, NIGHT, [Policy(name="odd", eligible=rule)])


def test_rules_over_the_declared_columns_are_accepted(empty_shop: Warehouse) -> None:
    rules = ("true", "kind IS NULL OR kind NOT IN ('a''b')", "item_id % 2 = 0 AND price LIKE 'x%'", "null")
    check_eligible(empty_shop, NIGHT, [Policy(name=f"p{i}", eligible=rule) for i, rule in enumerate(rules)])


def test_names_and_ids_of_the_command_line_are_checked_against_the_settings(tmp_path: Path) -> None:
    settings = load_settings(shop.write_settings(tmp_path))
    check_night(settings)
    check_models(settings, ["mha", "xor"])
    with pytest.raises(
        SettingsError, match=r"no model 'mhaa' in models: \['mha', 'xor'\]; nearest model: mha$"
    ):
        check_models(settings, ["mhaa"])
    bare = settings.model_copy(update={"models": []})
    for check in (check_night, lambda each: check_models(each, [])):
        with pytest.raises(SettingsError, match="no model"):
            check(bare)
    for user in ("42", "-7", " 42 ", "042", "42.0", "1e3"):  # ingest reads all of these as ids
        find_person(settings, user)
    for user in ("abc", "4.2", "0x1", "٤٢", "1_000", str(2**63), "42;"):
        with pytest.raises(NoSuchId, match=r"is not a whole number, such as 42; ids.user_id is long"):
            find_person(settings, user)
    texts = settings.model_copy(update={"ids": settings.ids.model_copy(update={"user_id": "string"})})
    find_person(texts, "it's")
    for of_type in (settings, texts):
        for nothing in ("", " ", "NULL"):
            with pytest.raises(NoSuchId, match=r"means null; .*Nothing was changed"):
                find_person(of_type, nothing)
