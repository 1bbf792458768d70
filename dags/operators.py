"""The operators of the DAGs: a job on Spark, a job that is a plain process, and the wait for files.

Both kinds of jobs report their results to Airflow: figures to XCom, the night to the events of their assets,
and the addresses of their links. A failure that only a person can fix ends a task at once, see
`exit_codes.py`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from dags.exit_codes import find_final
from dags.lineage import Lineage, lineage_of
from dags.links import NightPage, SparkApplication, addresses
from dags.options import Options
from dags.results import Results, read_results, result_file

SECONDS = 2.0  # between two looks at the file of results while a job runs


def night_of(arguments: Sequence[str]) -> str | None:
    """Return the night that the arguments of a job name, for a job that could not tell its results."""
    for number, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag == "--ds":
            return value or arguments[number + 1]
    return None


@contextmanager
def links_while_running(operator: JobOperator, file: Path, context: Context) -> Iterator[None]:
    """Show the links of a task as soon as its application is known; by itself, Airflow shows them at its end.

    Args:
        operator: the operator of the task.
        file: the file of results that the job writes.
        context: the context of the task.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS):
            operator.results = read_results(file)
            if operator.results.application and (instance := context.get("ti")):
                for key, address in addresses(operator.options, operator.results).items():
                    instance.xcom_push(key, address)
                return

    thread = threading.Thread(target=watch, name="links", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class JobOperator(SparkSubmitOperator):
    """An operator that submits some steps to Spark, and reports their results and their tables."""

    operator_extra_links = (NightPage(), SparkApplication())

    def __init__(self, *, steps: Sequence[str], options: Options, **more: Any) -> None:
        super().__init__(**more)
        self.steps = list(steps)
        self.options = options
        self.results = Results()

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Submit the application, wait for its end, and return its figures for XCom.

        Raises:
            AirflowFailException: the application failed, and another attempt cannot help.
            AirflowSkipException: the step had nothing to do.
        """
        self._hook = self._get_hook()
        remote = self._hook._connection.get("deploy_mode") == "cluster" and not self.options.results
        arguments = list(self.application_args or ())
        with result_file(self.options.results) as file:
            # A driver on another machine could not write to a folder of this one.
            self.application_args = arguments if remote else [*arguments, "--result", str(file)]
            self._hook = self._get_hook()
            try:
                with links_while_running(self, file, context):
                    self._submit(context)
            finally:
                self.results = read_results(file)
                self.results.night = self.results.night or night_of(arguments)
        if remote:
            self.log.warning("no figures: in cluster mode, the option `results` names a folder for them")
        return self._report(context)

    def _submit(self, context: Context) -> None:
        try:
            super().execute(context)
        except AirflowException as error:
            process = getattr(self._hook, "_submit_sp", None)
            codes = getattr(process, "returncode", None), getattr(self._hook, "_spark_exit_code", None)
            if final := find_final(str(error), *codes):
                raise final from error
            raise

    def _report(self, context: Context) -> dict[str, Any]:
        nowhere = self.results.steps.get("export_recommendations", {}).get("exported")
        if nowhere and self.steps == ["export_recommendations"]:
            raise AirflowSkipException(f"exported {nowhere}")
        for asset in self.outlets:
            context["outlet_events"][asset].extra = self.results.event()
        return self.results.to_xcom()

    def get_openlineage_facets_on_complete(self, task_instance: object) -> Lineage:
        """Return the tables of all steps."""
        return lineage_of(self.steps, self.options.namespace)


class ProcessOperator(BaseOperator):
    """An operator that runs a job which needs no Spark as a process on the worker, without a shell."""

    template_fields: Sequence[str] = ("arguments",)
    operator_extra_links = (NightPage(),)

    def __init__(self, *, job: Path, arguments: Sequence[str], options: Options, **more: Any) -> None:
        super().__init__(**more)
        self.job = str(job)
        self.arguments = list(arguments)
        self.options = options
        self.results = Results()

    @cached_property
    def _hook(self) -> SubprocessHook:
        return SubprocessHook()

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the job and return its figures for XCom.

        Raises:
            AirflowFailException: the job failed, and another attempt cannot help.
            AirflowException: the job failed.
        """
        python = os.environ.get("PYSPARK_DRIVER_PYTHON") or os.environ.get("PYSPARK_PYTHON") or sys.executable
        path = os.pathsep.join(filter(None, (self.options.package, os.environ.get("PYTHONPATH"))))
        with result_file("") as file:
            command = [python, self.job, *self.arguments, "--result", str(file)]
            done = self._hook.run_command(command, env={**os.environ, "PYTHONPATH": path}, cwd=os.getcwd())
            self.results = read_results(file)
        if done.exit_code:
            raise find_final(done.output, done.exit_code) or AirflowException(done.output)
        return self.results.to_xcom()

    def on_kill(self) -> None:
        """Stop the process."""
        self._hook.send_sigterm()  # type: ignore[no-untyped-call]


class FilesSensor(FileSensor):
    """A sensor that waits for files without a slot of a pool or a worker: the triggerer looks for them."""

    @cached_property
    def path(self) -> str:
        """The pattern of the files, which needs no connection of Airflow."""
        return str(self.filepath)
