"""Which strings can name a run, a model or a policy.

These names become folders, partitions, transaction names and values of predicates, on every storage and in
every reader. They are therefore limited to plain characters, although the code that uses them quotes them as
well. A run key may be any run id of Airflow.
"""

from __future__ import annotations

import re

LONGEST_KEY, LONGEST_NAME = 250, 64  # Airflow's own limit for a run id; a name is part of a path
KEY = re.compile(r"[A-Za-z0-9_.~:+-]+")  # Airflow's default `allowed_run_id_pattern`
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TAKEN = ("champions",)  # a table in the folder that holds the models' folders
SUFFIXES = (".training", ".new")  # the ends of the names of a model's temporary folders


def check_run_key(key: str) -> str:
    """Return the run key if it is a valid one.

    Raises:
        ValueError: the key is empty or too long, or has a character that a run key can't have.
    """
    if not KEY.fullmatch(key) or len(key) > LONGEST_KEY or not key.strip("."):
        raise ValueError(
            f"the run key {_shown(key)} is not 1 to {LONGEST_KEY} letters, digits and _ . ~ : + - (as in "
            "manual__2024-05-01T00:00:00+00:00); choose another one"
        )
    return key


def check_name(name: str) -> str:
    """Return the name of a model or a policy if it is a valid one.

    Raises:
        ValueError: the name has a character that a name can't have, or is already taken.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{_shown(name)} is not a name: 1 to {LONGEST_NAME} letters, digits and _ . -, the first one a "
            "letter or digit; choose another one"
        )
    if name.lower() in TAKEN or name.lower().endswith(SUFFIXES):
        raise ValueError(
            f"{name!r} is the name of a table or of a folder of this project's own ({', '.join(TAKEN)}, "
            f"…{', …'.join(SUFFIXES)}); choose another one"
        )
    return name


def _shown(text: str) -> str:
    return repr(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…")
