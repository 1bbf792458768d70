"""What the exit code of a job says to Airflow: whether another attempt can help.

The codes are those of `jobs/endings.py`. spark-submit hands them on in `client` deploy mode, and Kubernetes
as the exit code of the driver's container; where a cluster hides them, every failure is tried again.
"""

from __future__ import annotations

import re
from typing import Final

from airflow.sdk.exceptions import AirflowFailException

# 2: the command line; 3: settings, drops, tables, rights, an audit or a certificate.
FOR_A_PERSON: Final = (2, 3)
LINE = re.compile(r"error: .*")


def find_final(said: str, *codes: int | None) -> AirflowFailException | None:
    """The error that ends a task without another attempt, None where one may help.

    Args:
        said: what the hook reports of spark-submit, the end of its output included.
        codes: exit codes, as far as they are known.
    """
    final = next((code for code in codes if code in FOR_A_PERSON), None)
    if final is None:
        return None
    lines = dict.fromkeys(LINE.findall(said))
    why = "; ".join(lines) or "see the line of this log that starts with `error: `"
    return AirflowFailException(f"the job ended with exit code {final}, which no other attempt mends: {why}")
