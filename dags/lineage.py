"""The tables that each step reads and writes, for OpenLineage.

Spark's own lineage ends at a Python function, and our steps do their work in such functions. Each task
therefore declares its lineage as a whole, for example events as input and link states as output. Datasets are
named `NAMESPACE/table`; LIME_NAMESPACE is the URI of the warehouse as your catalogue spells it (default
`lime`). A test compares these sets with the tables that the steps of a night read and write.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.openlineage.extractors import OperatorLineage
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException
from openlineage.client.event_v2 import Dataset
from openlineage.client.facet_v2 import RunFacet

from dags.exit_codes import find_final

Lineage = OperatorLineage[Dataset, RunFacet]
NAMESPACE = os.environ.get("LIME_NAMESPACE", "lime")


class Edges(NamedTuple):
    """The tables that a step reads and writes, except for bookkeeping: `runs`, `leases`, `loaded_drops`."""

    reads: frozenset[str]
    writes: frozenset[str]


def _edges(reads: str, writes: str) -> Edges:
    return Edges(frozenset(reads.split()), frozenset(writes.split()))


STATES = "user_link_states user_memory"
BANK = "candidate_bank item_bias"
EDGES = {
    "ingest_events": _edges("drops", "events events_quarantine items users"),
    "build_candidate_bank": _edges("champions events items candidate_bank", BANK),
    "build_link_states": _edges(f"champions events users {STATES}", STATES),
    "score_candidates": _edges(
        f"{BANK} {STATES} candidate_history staging", "bank_quarantine candidate_history staging"
    ),
    "verify_night": _edges(f"{STATES} events items users staging", ""),
    "audit_recommendations": _edges(f"item_bias items {STATES} recommendations staging", ""),
    "publish_recommendations": _edges("staging", "recommendations"),
    "export_recommendations": _edges("recommendations", "served_lists"),
    "challenge_model": _edges("champions events items users", "champions"),
    "tidy_tables": _edges("", "candidate_history staging"),
}


class LineageSubmitOperator(SparkSubmitOperator):
    """An operator that submits some steps to Spark, and reports their tables to OpenLineage when it ends.

    A failure that only a person can fix ends the task at once, see `exit_codes.py`.
    """

    def __init__(self, *, steps: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self.steps = list(steps)

    def execute(self, context: Context) -> None:
        """Submit the application and wait for its end.

        Raises:
            AirflowFailException: the application failed, and another attempt cannot help.
        """
        try:
            super().execute(context)
        except AirflowException as error:
            process = getattr(self._hook, "_submit_sp", None)
            codes = getattr(process, "returncode", None), getattr(self._hook, "_spark_exit_code", None)
            if final := find_final(str(error), *codes):
                raise final from error
            raise

    def get_openlineage_facets_on_complete(self, task_instance: object) -> Lineage:
        """Return the tables of all steps; a table that one step writes for the next is input and output."""
        edges = [EDGES[step] for step in self.steps]
        reads = frozenset[str]().union(*(edge.reads for edge in edges))
        writes = frozenset[str]().union(*(edge.writes for edge in edges))
        return Lineage(inputs=_datasets(reads), outputs=_datasets(writes))


def _datasets(names: frozenset[str]) -> list[Dataset]:
    return [Dataset(namespace=NAMESPACE, name=name) for name in sorted(names)]
