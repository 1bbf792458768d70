"""The alarms for the engineer on call: a task failed for good, or a night was not published in time.

An alarm is logged as an error. If LIME_ALARM_URL is set (or the variable that the option `alarm_url_env`
names), it is also posted there as JSON `{"text": …}`, a web hook that chat and paging services accept.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from typing import Any

import httpx
from airflow.sdk import BaseNotifier

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10


class Alarm(BaseNotifier):
    """The base of the alarms; each says in one text what happened."""

    def __init__(self, url_env: str = "LIME_ALARM_URL", context: Any = None) -> None:
        super().__init__(context=context)
        self.url_env = url_env

    @abstractmethod
    def describe(self, context: Any) -> str | None:
        """Return the text of the alarm, or None if there is none to raise."""

    def notify(self, context: Any) -> None:
        """Raise the alarm in the process of the task."""
        if url := self._say(text := self.describe(context)):
            try:
                httpx.post(url, json={"text": text}, timeout=TIMEOUT_SECONDS).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self._not_posted(error)

    async def async_notify(self, context: Any) -> None:
        """Raise the alarm in the triggerer, which serves others while the web hook answers."""
        if url := self._say(text := self.describe(context)):
            try:
                async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
                    (await client.post(url, json={"text": text})).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self._not_posted(error)

    def _say(self, text: str | None) -> str | None:
        """Log the alarm; return where to post it, if anywhere."""
        if text is None:
            return None
        log.error(text)
        return os.environ.get(self.url_env)

    def _not_posted(self, error: Exception) -> None:
        log.error("the alarm could not be posted to %s: %s", self.url_env, type(error).__name__)


class TaskFailed(Alarm):
    """The alarm for a task whose retries are used up."""

    def describe(self, context: Any) -> str:
        """Return which task of which night failed, and why."""
        task, run = context["task_instance"], context["dag_run"]
        params = context.get("params") or {}
        night = (run.conf or {}).get("night") or params.get("night") or run.logical_date
        return (
            f"{task.dag_id}.{task.task_id} of night {night or 'of its asset event'} failed for good in run "
            f"{run.run_id}: {context.get('exception')}. Nothing that was published has changed. Log: "
            f"{task.log_url}"
        )


class NightIsLate(Alarm):
    """The alarm for a run that has not ended by its deadline, unless it is a backfill of past nights.

    The run may have published the night already and still be exporting it: the deadline looks at the clock,
    and only the tasks show what readers get.
    """

    def describe(self, context: Any) -> str | None:
        """Return which run is late."""
        run = context["dag_run"]
        if run.get("run_type") == "backfill":
            return None
        night = (run.get("conf") or {}).get("night") or run.get("logical_date") or "of its asset's event"
        return (
            f"{run.get('dag_id', 'nightly_scoring')} of night {night} has not ended by its deadline "
            f"(run {run.get('dag_run_id') or run.get('run_id')}). Until its publishing task has succeeded "
            "readers get the last published lists"
        )
