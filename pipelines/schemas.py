"""Every table's columns, partitions, checksum and constraints; each is defined here and nowhere else.

The schemas of UDFs, the columns that a checksum covers and the `select`s of jobs derive from `TABLES`.
`{user}` and `{item}` are the id types that the settings declare. There is no Spark in this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
EVENT_TS: Final = "event_ts"
EVENT_TYPE: Final = "event_type"
SESSION_ID: Final = "session_id"
LABEL: Final = "label"
DS: Final = "ds"  # the UTC day of an event; for a night, the day before whose start events count
DROP_DS: Final = "drop_ds"  # the day of the drop folder that delivered the row
# Columns of `items` and `users`. The settings name the others, which never begin with an underscore.
VALID_FROM: Final = "_valid_from"
VALID_TO: Final = "_valid_to"  # exclusive; null for the current version of a row
DELIVERED_UNTIL: Final = "_delivered_until"  # last drop with the same values; null: the newest drop
# Columns of the corpus, in addition to the item columns of the settings.
RECENT: Final = "_recent_count"
ELIGIBLE: Final = "_eligible"
WITHDRAWN: Final = "_withdrawn"
CORPUS_FINGERPRINT: Final = "_fingerprint"
EVENT_ID: Final = "event_id"  # what `ingest.events.key` names an event by, as JSON; null without one
REPEAT: Final = "repeat"  # counts from 0 the events that are equal in every other column of the key
SUPERSEDED_BY: Final = "superseded_by"  # the later drop with the same event; null: this row counts
BUCKET: Final = "bucket"
MODEL_VERSION: Final = "model_version"
RUN_ID: Final = "run_id"
POLICY: Final = "policy"
FINGERPRINT: Final = "fingerprint"  # names what a row was computed from; see `store/row_digests.py`
CHECKSUM: Final = "checksum"  # over the computed values of the row

EVENT_KEY: Final = (USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, SESSION_ID)
HISTORY_ORDER: Final = (EVENT_TS, SESSION_ID, ITEM_ID, EVENT_TYPE)

REPORTS: Final = "reports"  # the folder of the warehouse that holds the pages of nights
SQL_TYPES: Final = {"long": "bigint", "string": "string"}  # by the id types of the settings


@dataclass(frozen=True)
class Table:
    """What a Delta table holds.

    Args:
        columns: the SQL type of each column, in the order of the table.
        partitions: the columns by which the files of the table are partitioned.
        checksummed: the columns that `CHECKSUM` covers, in the order in which it is computed.
        properties: the properties of the Delta table.
        constraints: conditions in SQL, by name; Delta refuses a row that breaks one.
    """

    columns: Mapping[str, str]
    partitions: Sequence[str] = ()
    checksummed: Sequence[str] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    constraints: Mapping[str, str] = field(default_factory=dict)

    def ddl(self, columns: Sequence[str] | None = None) -> str:
        """Return the schema as `name type, …`: the given columns in the given order, or all columns."""
        return ", ".join(f"{name} {self.columns[name]}" for name in columns or self.columns)


RANKED: Final = "array<struct<item_id: {item}, score: float>>"
DELETION_VECTORS: Final = {"delta.enableDeletionVectors": "true"}
# Each step of a night commits a row here, so a checkpoint every ten commits would mean one each night.
FEW_CHECKPOINTS: Final = {"delta.checkpointInterval": "50"}

TABLES: Final[dict[str, Table]] = {
    "events": Table(
        {
            USER_ID: "{user}",
            ITEM_ID: "{item}",
            EVENT_TS: "timestamp",
            EVENT_TYPE: "string",
            SESSION_ID: "string",
            LABEL: "double",
            DROP_DS: "date",
            DS: "date",
            EVENT_ID: "string",
            REPEAT: "int",
            SUPERSEDED_BY: "date",
        },
        partitions=(DS,),
        properties={"delta.enableChangeDataFeed": "true"},  # states follow it, see build/history_changes.py
        constraints={"has_key": "user_id IS NOT NULL AND item_id IS NOT NULL AND event_ts IS NOT NULL"},
    ),
    "events_quarantine": Table(
        {
            DROP_DS: "date",
            "source": "string",
            "reason": "string",
            "row": "string",
            "file": "string",
            "location": "string",
            "value": "string",
            USER_ID: "string",
            "loaded": "boolean",
        },
        partitions=(DROP_DS,),
    ),
    "loaded_drops": Table({"source": "string", DROP_DS: "date", "had_files": "boolean"}),
    "candidate_bank": Table(
        {
            ITEM_ID: "{item}",
            MODEL_VERSION: "string",
            "link_weights": "binary",
            "head_input": "binary",
            "dot": "binary",
            FINGERPRINT: "string",
            CHECKSUM: "long",
        },
        partitions=(MODEL_VERSION,),
        checksummed=(ITEM_ID, "link_weights", "head_input", "dot"),
        properties=DELETION_VECTORS,  # a night that changes few rows leaves the files of the others
    ),
    "item_bias": Table(
        {
            DS: "date",
            ITEM_ID: "{item}",
            MODEL_VERSION: "string",
            "recent_count": "long",
            "bias": "float",
            "eligible": "long",
        },
        partitions=(DS,),
        constraints={"finite_bias": "NOT isnan(bias) AND abs(bias) < double('infinity')"},
    ),
    "user_link_states": Table(
        {
            BUCKET: "int",
            USER_ID: "{user}",
            MODEL_VERSION: "string",
            "as_of": "date",
            "events_version": "long",
            "event_count": "long",
            "history_xor": "long",
            "history_sum": "long",
            "last_event_ts": "timestamp",
            "slots": "array<long>",
            "weights": "array<float>",
            "state": "binary",
            FINGERPRINT: "string",
            CHECKSUM: "long",
        },
        partitions=(MODEL_VERSION,),
        checksummed=(
            BUCKET,
            USER_ID,
            "event_count",
            "history_xor",
            "history_sum",
            "last_event_ts",
            "slots",
            "weights",
            "state",
        ),
        properties=DELETION_VECTORS,
    ),
    "user_memory": Table(
        {
            BUCKET: "int",
            USER_ID: "{user}",
            MODEL_VERSION: "string",
            "as_of": "date",
            "items": "array<{item}>",
            "counts": "array<long>",
            "first_ts": "array<timestamp>",
            "last_ts": "array<timestamp>",
            "decays": "binary",
            "features": "binary",
            FINGERPRINT: "string",
            CHECKSUM: "long",
        },
        partitions=(MODEL_VERSION,),
        checksummed=(BUCKET, USER_ID, "items", "counts", "first_ts", "last_ts", "decays", "features"),
        properties=DELETION_VECTORS,
    ),
    "staging": Table(
        {
            RUN_ID: "string",
            BUCKET: "int",
            POLICY: "string",
            USER_ID: "{user}",
            "candidates": RANKED,
            "shortfall": "int",
            "pairs": "long",
            "avoided": "long",
            "fault": "string",
            "anchor": "string",
            "kept_items": "array<{item}>",
            "kept_z": "binary",
            "tau": "float",
            FINGERPRINT: "string",
            CHECKSUM: "long",
        },
        partitions=(RUN_ID,),
        checksummed=(USER_ID, POLICY, "anchor", "kept_items", "kept_z", "tau", FINGERPRINT),
    ),
    "candidate_history": Table(
        {
            RUN_ID: "string",
            ITEM_ID: "{item}",
            FINGERPRINT: "string",
            "bias": "float",
            "since": "int",
            "reference": "float",
            "biases": "array<float>",
        },
        partitions=(RUN_ID,),
    ),
    "recommendations": Table(
        {
            DS: "date",
            USER_ID: "{user}",
            "candidates": RANKED,
            "shortfall": "int",
            "fault": "string",
            MODEL_VERSION: "string",
            RUN_ID: "string",
        },
        partitions=(DS,),
        constraints={
            "has_owner": "user_id IS NOT NULL AND run_id IS NOT NULL",
            "list_or_fault": "candidates IS NOT NULL OR fault IS NOT NULL",
            "finite_scores": (
                "candidates IS NULL OR forall(candidates, c -> NOT isnan(c.score) AND abs(c.score) < "
                "double('infinity'))"
            ),
            "items_once": (
                "candidates IS NULL OR "
                "size(array_distinct(transform(candidates, c -> c.item_id))) = size(candidates)"
            ),
        },
    ),
    "bank_quarantine": Table({RUN_ID: "string", ITEM_ID: "{item}", "reason": "string"}),
    "leases": Table(
        {
            DS: "date",
            "epoch": "long",
            "run_key": "string",
            "holder": "string",
            "job": "string",
            "attempt": "long",
        },
        properties=FEW_CHECKPOINTS,
        constraints={"epochs_count_from_1": "epoch >= 1"},
    ),
    "champions": Table(
        {
            "number": "long",
            "model": "string",
            "valid_from": "date",
            MODEL_VERSION: "string",
            "reason": "string",
            "evidence": "string",
        }
    ),
    "runs": Table(
        {RUN_ID: "string", DS: "date", "job": "string", "seconds": "double", "manifest": "string"},
        properties=FEW_CHECKPOINTS,
    ),
}

# The columns that UDFs return and a table holds.
BANK_FACTORS: Final = ("link_weights", "head_input", "dot")
REDUCED: Final = (  # a user's row of both tables of states, without the columns that the job adds
    BUCKET, USER_ID, "event_count", "history_xor", "history_sum", "last_event_ts", "slots", "weights",
    "state", FINGERPRINT, "items", "counts", "first_ts", "last_ts", "decays", "features",
)  # fmt: skip
SCORED: Final = (  # a row of staging, without the columns that the job adds
    USER_ID, BUCKET, POLICY, "candidates", "shortfall", "pairs", "avoided", "fault", "anchor", "kept_items",
    "kept_z", "tau", FINGERPRINT,
)  # fmt: skip


def ddl_of(*tables: str, columns: Sequence[str]) -> str:
    """Return the schema as `name type, …` of columns of some tables, in the given order."""
    types = {name: kind for table in tables for name, kind in TABLES[table].columns.items()}
    return ", ".join(f"{name} {types[name]}" for name in columns)
