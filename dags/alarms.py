"""What an engineer is told at night: a task that failed for good, a night that is not published in time.

An alarm is logged as an error and, where LIME_ALARM_URL is set, posted there as JSON `{"text": …}`, which
chat and paging services take as a web hook.
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
    """Log it, and post it where LIME_ALARM_URL says; a web hook that does not answer is logged too."""
    log.error(text)
    if url := os.environ.get("LIME_ALARM_URL"):
        body = json.dumps({"text": text}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
        except OSError as error:
            log.error("the alarm could not be posted to LIME_ALARM_URL: %s", error)


def task_failed(context: Any) -> None:
    """Callback of a task whose retries are used up."""
    task, run = context["task_instance"], context["dag_run"]
    night = (run.conf or {}).get("night") or run.logical_date or "of its asset's event"
    raise_alarm(
        f"{task.dag_id}.{task.task_id} of night {night} failed for good in run {run.run_id}: "
        f"{context.get('exception')}. Nothing that was published has changed. Log: {task.log_url}"
    )


async def night_is_late(context: Any) -> None:
    """Callback of the deadline: the run has not ended by then; a backfill of past nights is not late.

    It may have published and be exporting: what its readers get is said by its tasks, not by the clock.
    """
    run = context["dag_run"]
    if run.get("run_type") == "backfill":
        return
    night = (run.get("conf") or {}).get("night") or run.get("logical_date") or "of its asset's event"
    raise_alarm(
        f"{run.get('dag_id', 'nightly_scoring')} of night {night} has not ended by its deadline "
        f"(run {run.get('dag_run_id') or run.get('run_id')}). Until its publishing task has succeeded "
        "the last published lists stand"
    )
