"""The DAG with a form for what a person does after a night, such as to roll back, to pin or to forget.

    airflow dags trigger operations --conf '{"action": "pin", "night": "2017-12-04", "reason": "an audit"}'

Press *Trigger*, choose an action and fill in its fields. The task `check` refuses fields that do not fit the
action, before any job starts; then the task of the action runs. A rollback updates the asset of the lists or
of the champions.

The id of a user to forget is handed to the job in the environment of its process: it is in no command line
and in no log line of Airflow. It stays in the configuration of the run; delete the run when it has ended.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, Asset, BaseBranchOperator, Context
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.log import mask_secret

from dags.forms import ACTIONS, USER, arguments_of, fields, find_problem
from dags.operators import JobOperator
from dags.options import Options, read_options
from dags.tasks import shared, spark_arguments


class CheckOperator(BaseBranchOperator):
    """An operator that checks the form and chooses the task of its action."""

    def choose_branch(self, context: Context) -> str:
        """Return the name of the action's task.

        Raises:
            AirflowFailException: a field is missing, or does not belong to the action.
        """
        if problem := find_problem(context["params"]):
            raise AirflowFailException(problem)
        return str(context["params"]["action"])


class ActionOperator(JobOperator):
    """An operator whose command line is made from the form when it runs, not from a template."""

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Run the job of the action."""
        params = context["params"]
        form = arguments_of(params, str(context["run_id"]))
        self.application_args = ["--config", self.options.config, *form]
        user = params.get("user")
        if user is None:
            return super().execute(context)
        mask_secret(user)
        os.environ[USER] = user
        try:
            return super().execute(context)
        finally:
            del os.environ[USER]


def outlets(options: Options, action: str) -> list[Asset]:
    """Return the assets that an action updates."""
    kinds = {"roll_back_lists": "recommendations", "roll_back_model": "champions"}
    return [options.asset(kinds[action])] if action in kinds else []


def build(options: Options) -> DAG:
    """Return the DAG of a tenant."""
    with DAG(
        dag_id=options.dag_id("operations"),
        description="Forms to roll back, pin, forget, evaluate, compare in full and export again",
        schedule=None,
        params=fields(),
        doc_md=__doc__,
        **shared(options),
    ) as dag:
        check = CheckOperator(task_id="check", doc_md="Checks that the fields of the form fit the action.")
        for name, action in ACTIONS.items():
            common = spark_arguments(options, name, action.job, ())
            check >> ActionOperator(**common, doc_md=action.about, outlets=outlets(options, name))
    return dag


for tenant in read_options().tenants:
    globals()[tenant.dag_id("operations")] = build(tenant)
