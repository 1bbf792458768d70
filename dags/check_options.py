"""Raise an import error in Airflow that names every mistake in the options of the DAGs; see `options.py`.

This file holds no DAG, so its error takes no DAG away: a tenant with wrong options has none, and the other
tenants keep theirs.
"""

from __future__ import annotations

from dags.options import read_options


class OptionsError(Exception):
    """The environment or the file of LIME_TENANTS has a mistake; the message has a line for each."""


if problems := read_options().problems:
    raise OptionsError("\n".join(problems))
