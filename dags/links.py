"""The links on a task in Airflow: to the page of the night, and to the task's Spark application."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

    from dags.options import Options
    from dags.results import Results


def page_of(options: Options, results: Results) -> str:
    """Return the address of a night's page, or an empty text if it can't be known."""
    if not results.night or not (options.reports_url or results.pages):
        return ""
    name = f"night={results.night}.html"
    if options.reports_url:
        return f"{options.reports_url.rstrip('/')}/{name}"
    return (Path(str(results.pages)).resolve() / name).as_uri()


def application_of(options: Options, results: Results) -> str:
    """Return the address of a Spark application: in the history server if there is one, or its own pages."""
    if options.history_url and results.application:
        return f"{options.history_url.rstrip('/')}/history/{results.application}/jobs/"
    return results.ui or ""


class NightPage(BaseOperatorLink):
    """The page that says how the night went."""

    name = "Page of the night"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the address; Airflow asks in the end, in the process that ran the task."""
        return page_of(operator.options, operator.results)


class SparkApplication(BaseOperatorLink):
    """The application in Spark's history server, or its own pages while it runs."""

    name = "Spark application"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the address; Airflow asks in the end, in the process that ran the task."""
        return application_of(operator.options, operator.results)


def addresses(options: Options, results: Results) -> dict[str, str]:
    """Return the addresses of both links by the keys under which Airflow looks for them."""
    return {
        NightPage().xcom_key: page_of(options, results),
        SparkApplication().xcom_key: application_of(options, results),
    }
