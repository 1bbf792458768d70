"""The exit codes of the jobs, as Airflow reads them: whether another attempt can help.

The codes are those of `jobs/endings.py`. In `client` deploy mode spark-submit ends with the code of the job;
on Kubernetes it is the exit code of the driver's container. Where a cluster hides the code, every failure is
tried again.
"""

from __future__ import annotations

import re
from typing import Final

from airflow.sdk.exceptions import AirflowFailException

# The cause of 2 is the command line; of 3 settings, drops, tables, rights, an audit or a certificate.
FOR_A_PERSON: Final = (2, 3)
LINE = re.compile(r"error: .*")


def find_final(said: str, *codes: int | None) -> AirflowFailException | None:
    """Return the error that ends a task without another attempt, or None if another attempt may help.

    Args:
        said: the report of the hook about spark-submit, with the end of its output.
        codes: the exit codes, or None for each that is not known.
    """
    final = next((code for code in codes if code in FOR_A_PERSON), None)
    if final is None:
        return None
    lines = dict.fromkeys(LINE.findall(said))
    why = "; ".join(lines) or "see the line of this log that starts with `error: `"
    return AirflowFailException(
        f"the job ended with exit code {final}, which another attempt cannot fix: {why}"
    )
