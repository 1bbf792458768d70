"""The alarms for the engineer on call: a task failed for good, or a night was not published in time.

An alarm is logged as an error. If LIME_ALARM_URL is set, it is also posted there as JSON `{"text": …}`, a web
hook that chat and paging services accept.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from typing import Any

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10


def raise_alarm(text: str) -> None:
    """Log an alarm, and post it to LIME_ALARM_URL; log it as well if the web hook does not answer."""
    log.error(text)
    if url := os.environ.get("LIME_ALARM_URL"):
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
        except OSError as error:
            log.error("the alarm could not be posted to LIME_ALARM_URL: %s", error)


def task_failed(context: Any) -> None:
    """Raise the alarm for a task whose retries are used up."""
    task, run = context["task_instance"], context["dag_run"]
    night = (run.conf or {}).get("night") or run.logical_date or "of its asset's event"
    raise_alarm(
        f"{task.dag_id}.{task.task_id} of night {night} failed for good in run {run.run_id}: "
        f"{context.get('exception')}. Nothing that was published has changed. Log: {task.log_url}"
    )


async def night_is_late(context: Any) -> None:
    """Raise the alarm for a run that has not ended by its deadline, unless it is a backfill of past nights.

    The run may have published the night already and still be exporting it: the deadline looks at the clock,
    and only the tasks show what readers get.
    """
    run = context["dag_run"]
    if run.get("run_type") == "backfill":
        return
    night = (run.get("conf") or {}).get("night") or run.get("logical_date") or "of its asset's event"
    raise_alarm(
        f"{run.get('dag_id', 'nightly_scoring')} of night {night} has not ended by its deadline "
        f"(run {run.get('dag_run_id') or run.get('run_id')}). Until its publishing task has succeeded "
        "readers get the last published lists"
    )
