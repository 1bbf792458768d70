"""Which strings can name a run, a model or a policy.

They become folders, partitions, transaction names and values of predicates, on every storage and in every
reader; so they are plain, whatever quotes the code that uses them. A run key may be any run id of Airflow.
"""

from __future__ import annotations

import re

LONGEST_KEY, LONGEST_NAME = 250, 64  # Airflow's own limit for a run id; a name is part of a path
KEY = re.compile(r"[A-Za-z0-9_.~:+-]+")  # Airflow's default `allowed_run_id_pattern`
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # of an environment
TAKEN = ("champions",)  # a table beside the models' folders
SUFFIXES = (".training", ".new")  # of folders beside a model's own


def check_run_key(key: str) -> str:
    """The key itself.

    Raises:
        ValueError: it has other characters than a run key, none, or too many.
    """
    if not KEY.fullmatch(key) or len(key) > LONGEST_KEY or not key.strip("."):
        raise ValueError(
            f"the run key {_shown(key)} is not 1 to {LONGEST_KEY} letters, digits and _ . ~ : + - (as in "
            "manual__2024-05-01T00:00:00+00:00); choose another one"
        )
    return key


def check_name(name: str) -> str:
    """The name itself, of a model or a policy.

    Raises:
        ValueError: it can't be the name of a folder beside others.
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
