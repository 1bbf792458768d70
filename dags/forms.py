"""The form of the DAG `operations`: its fields, and what each action makes of them.

Airflow checks each field by its schema before a run exists. `find_problem` checks that the fields fit the
action, and `arguments_of` makes the command line of the job: one element for each option, with the value
after `=`, so that no value is ever read as an option, a template or by a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from airflow.sdk import Param

USER: Final = "LIME_FORGET_USER"  # the environment variable that hands the user's id to the job


class Action(NamedTuple):
    """What one action of the form runs, and the fields that it needs and may take besides the night."""

    job: str
    about: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()  # further arguments of the job
    own_key: bool = False  # whether the job gets the run id as its key, so that a retry does its work once


ACTIONS: Final = {
    "roll_back_lists": Action(
        "roll_back", "Takes the lists of a night back, and puts earlier ones, or `to`, into force again.",
        needs=("reason",), takes=("to", "from"), own_key=True,
    ),
    "roll_back_model": Action(
        "roll_back", "Returns the nights from this one on to the bundle before the champion, or to `to`.",
        needs=("model", "reason"), takes=("to",),
    ),
    "pin": Action(
        "pin_night", "Keeps a published night with all that it was computed from.", needs=("reason",)
    ),
    "release": Action("pin_night", "Ends the pins of a night.", needs=("reason",), fixed=("--release",)),
    "forget": Action(
        "forget_user", "Removes a person from every table and export, and proves it. Run it while no night "
        "runs, and after the person was removed from the source.", needs=("user", "reason"),
    ),
    "evaluate": Action(
        "evaluate_model", "Measures models as of the night, on the events that follow. It publishes nothing.",
        takes=("model", "horizon_days", "min_events"), own_key=True,
    ),
    "compare_in_full": Action(
        "verify_night", "Scores all users of a run again, and compares every list with a full night's.",
        needs=("run_key",), fixed=("--full",),
    ),
    "export": Action(
        "export_recommendations", "Exports the lists in force again, for example after a rollback.",
        takes=("older",),
    ),
}  # fmt: skip

END = r"$(?!\n)"  # Python's $ also matches before a line break at the end
ID = rf"^[A-Za-z0-9_.~:+-]{{1,250}}{END}"  # a run id or run key, as Airflow and the jobs allow them
NAME = rf"^[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}{END}"


def _text(about: str, pattern: str) -> Param:
    return Param(None, type=["null", "string"], pattern=pattern, description=about, maxLength=500)


def _number(about: str) -> Param:
    return Param(None, type=["null", "integer"], minimum=1, maximum=100_000, description=about)


def fields() -> dict[str, Param]:
    """Return the fields of the form; those without a default must be filled in."""
    meanings = "\n".join(f"* **{name}**: {action.about}" for name, action in ACTIONS.items())
    return {
        "action": Param(type="string", enum=list(ACTIONS), title="Action", description_md=meanings),
        "night": Param(type="string", format="date", description="The night, or a model's first night"),
        "reason": _text("Why; it is kept with what is done (roll back, pin, release, forget)", r"\S"),
        "to": _text("Roll back: the run id of the lists, or the version of the bundle, to return to", ID),
        "from": _text("Roll back lists: take back this run, or nothing if it is not in force", ID),
        "model": _text("A model of the settings (roll back a model, evaluate)", NAME),
        "user": _text("Forget: the user id, in any spelling that ingest reads", r"^[^\x00\ud800-\udfff]+$"),
        "run_key": _text(
            "Compare in full: the run key of the run, which is Airflow's run id of the night", ID
        ),
        "horizon_days": _number("Evaluate: the days after the night whose events are the truth (28)"),
        "min_events": _number("Evaluate: the events that a user needs to be counted (20)"),
        "older": Param(False, type="boolean", description="Export: replace a newer night that is served"),
    }


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were filled in, besides the action and the night."""
    return {
        name: value
        for name, value in params.items()
        if name not in ("action", "night") and value not in (None, "", False)
    }


def find_problem(params: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the fields of a form, or None."""
    name, filled = params["action"], given(params)
    action = ACTIONS[name]
    if missing := [field for field in action.needs if field not in filled]:
        return f"{name} needs the field {', '.join(missing)}; nothing was changed: fill it in and start again"
    if surplus := [field for field in filled if field not in action.needs + action.takes]:
        return (
            f"{name} does not use the field {', '.join(surplus)}; nothing was changed: leave it empty, or "
            "choose another action"
        )
    return None


def arguments_of(params: Mapping[str, Any], run_id: str) -> list[str]:
    """Return the arguments of the job, besides the settings file.

    Args:
        params: the fields of the form.
        run_id: the id of Airflow's run.
    """
    action, filled = ACTIONS[params["action"]], given(params)
    options = [f"--ds={params['night']}", *action.fixed]
    if action.own_key:
        options.append(f"--run-key={run_id}")
    for field, value in filled.items():
        flag = f"--{field.replace('_', '-')}"
        if field == "user":
            options.append(f"--user-env={USER}")
        else:
            number = isinstance(value, float)  # a whole number may arrive as 3.0
            options.append(flag if value is True else f"{flag}={int(value) if number else value}")
    return options
