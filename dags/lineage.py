"""The tables that each step reads and writes, for OpenLineage.

Spark's own lineage ends at a Python function, and our steps do their work in such functions. Each task
therefore declares its lineage as a whole, for example events as input and link states as output. Datasets are
named `NAMESPACE/table`; the option `namespace` is the URI of the warehouse as your catalogue spells it. A
test compares these sets with the tables that the steps of a night read and write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset
from openlineage.client.facet_v2 import RunFacet

Lineage = OperatorLineage[Dataset, RunFacet]


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


def lineage_of(steps: Sequence[str], namespace: str) -> Lineage:
    """Return the tables of all steps; a table that one step writes for the next is input and output."""
    edges = [EDGES[step] for step in steps if step in EDGES]
    reads = frozenset[str]().union(*(edge.reads for edge in edges))
    writes = frozenset[str]().union(*(edge.writes for edge in edges))
    return Lineage(inputs=_datasets(namespace, reads), outputs=_datasets(namespace, writes))


def _datasets(namespace: str, names: frozenset[str]) -> list[Dataset]:
    return [Dataset(namespace=namespace, name=name) for name in sorted(names)]
