"""The forms of the DAG `operations`: what they refuse, and the command lines that they make."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from dags.forms import ACTIONS, USER, arguments_of, fields, find_problem
from jobs import definitions
from jobs.arguments import add_option, parser

NIGHT = "2024-05-01"
RUN_ID = "manual__2024-05-01T00:00:00+00:00"
HOSTILE = "--release; rm -rf / $(id) `id` {{ ds }} 'x' \"y\" \n --model=z"
# Each action with fields that are enough for it, and what its job reads.
FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"action": "roll_back_lists", "reason": HOSTILE}, {"reason": HOSTILE, "model": None, "run_key": RUN_ID}),
    (
        {"action": "roll_back_lists", "reason": "r", "to": "a.1", "from": "-b.2"},
        {"to": "a.1", "expected": "-b.2"},
    ),
    (
        {"action": "roll_back_model", "reason": "r", "model": "mha", "to": "v1"},
        {"model": "mha", "to": "v1", "run_key": None},
    ),
    ({"action": "pin", "reason": "--release"}, {"reason": "--release", "release": False}),
    ({"action": "release", "reason": "r"}, {"release": True}),
    ({"action": "forget", "user": "1234567", "reason": "r"}, {"user": None, "user_env": USER}),
    ({"action": "evaluate"}, {"model": None, "horizon_days": 28, "min_events": 20, "run_key": RUN_ID}),
    ({"action": "evaluate", "model": "mha", "horizon_days": 14}, {"model": ["mha"], "horizon_days": 14}),
    ({"action": "compare_in_full", "run_key": "k"}, {"run_key": "k", "full": True}),
    ({"action": "export"}, {"older": False}),
    ({"action": "export", "older": True}, {"older": True}),
]  # fmt: skip


def filled(form: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a form as Airflow hands them to a run."""
    params = ParamsDict(fields())
    params.update({"night": NIGHT, **form})
    return dict(params.validate())


def parse(form: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Parse the arguments of a form as the job does."""
    monkeypatch.setenv(USER, "1234567")
    params = filled(form)
    assert find_problem(params) is None
    name = ACTIONS[params["action"]].job
    definition = getattr(definitions, name.upper())
    options = parser(name, "")
    for option in definition.options:
        add_option(options, option)
    args = options.parse_args(["--config=c.yaml", *arguments_of(params, RUN_ID)])
    assert definition.problem(args) is None
    return args


@pytest.mark.parametrize(("form", "read"), FORMS)
def test_the_job_reads_the_values_of_the_form(
    form: dict[str, Any], read: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = parse(form, monkeypatch)
    assert args.ds == NIGHT
    assert {key: getattr(args, key) for key in read} == read


def test_every_action_has_a_form_in_this_test_and_the_user_is_in_no_argument() -> None:
    assert {form["action"] for form, _ in FORMS} == set(ACTIONS)
    assert "1234567" not in str(arguments_of(filled({"action": "forget", "user": "1234567"}), RUN_ID))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "action"),
        ({"action": "drop"}, "action"),
        ({"action": "pin", "night": None}, "night"),
        ({"action": "pin", "night": "yesterday"}, "night"),
        ({"action": "pin", "reason": " "}, "reason"),
        ({"action": "roll_back_lists", "to": "a b"}, "to"),
        ({"action": "roll_back_lists", "from": "$(id)"}, "from"),
        ({"action": "roll_back_lists", "to": "2024-05-06.1\n"}, "to"),
        ({"action": "evaluate", "model": "mha\n"}, "model"),
        ({"action": "forget", "user": "\ud800"}, "user"),
        ({"action": "roll_back_model", "model": "../x"}, "model"),
        ({"action": "forget", "user": ""}, "user"),
        ({"action": "evaluate", "horizon_days": "14"}, "horizon_days"),
        ({"action": "evaluate", "min_events": 0}, "min_events"),
        ({"action": "export", "older": "yes"}, "older"),
    ],
)
def test_airflow_refuses_a_wrong_value_before_there_is_a_run(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ParamValidationError, match=f"param {field}"):
        filled(wrong)


def test_a_whole_number_that_arrives_with_a_fraction_is_whole() -> None:
    form = filled({"action": "evaluate", "horizon_days": 3.0})
    assert "--horizon-days=3" in arguments_of(form, RUN_ID)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"action": "pin"}, "pin needs the field reason; nothing was changed: fill it in"),
        ({"action": "forget"}, "forget needs the field user, reason"),
        ({"action": "compare_in_full"}, "compare_in_full needs the field run_key"),
        ({"action": "release", "reason": "r", "model": "mha"}, "release does not use the field model"),
        ({"action": "roll_back_lists", "reason": "r", "older": True}, "does not use the field older"),
        ({"action": "export", "verbose": "x"}, "export does not use the field verbose"),
    ],
)
def test_fields_that_do_not_fit_the_action_are_named(form: dict[str, Any], said: str) -> None:
    assert said in str(find_problem(filled(form)))
