"""Column names and table schemas, once.

`{user}` and `{item}` stand for the id types that the settings declare.
"""

from __future__ import annotations

from typing import Final

USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
EVENT_TS: Final = "event_ts"
EVENT_TYPE: Final = "event_type"
SESSION_ID: Final = "session_id"
LABEL: Final = "label"
DS: Final = "ds"  # UTC day of the event; of a night, the day before whose start events count
DROP_DS: Final = "drop_ds"  # day of the drop folder that delivered the row
# Of `items` and `users`, whose other columns the settings name; theirs never begin with an underscore.
VALID_FROM: Final = "_valid_from"
VALID_TO: Final = "_valid_to"  # exclusive; null while current
DELIVERED_UNTIL: Final = "_delivered_until"  # last drop that said the same; null: the newest one
# Of the corpus, in addition to the item columns of the settings.
RECENT: Final = "_recent_count"
ELIGIBLE: Final = "_eligible"
WITHDRAWN: Final = "_withdrawn"
CORPUS_FINGERPRINT: Final = "_fingerprint"
EVENT_ID: Final = "event_id"  # what `ingest.events.key` names an event by, as JSON; null without one
REPEAT: Final = "repeat"  # counts from 0 where an event happened several times at once
SUPERSEDED_BY: Final = "superseded_by"  # the later drop that delivered the event again; null: this row counts
BUCKET: Final = "bucket"
MODEL_VERSION: Final = "model_version"
RUN_ID: Final = "run_id"
POLICY: Final = "policy"
FINGERPRINT: Final = "fingerprint"  # of what a row was computed from; see `reuse.py`
CHECKSUM: Final = "checksum"  # of what was computed

EVENT_KEY: Final = (USER_ID, ITEM_ID, EVENT_TS, EVENT_TYPE, SESSION_ID)
HISTORY_ORDER: Final = (EVENT_TS, SESSION_ID, ITEM_ID, EVENT_TYPE)

SQL_TYPES: Final = {"long": "bigint", "string": "string"}  # by the id types of the settings
CANDIDATES: Final = "array<struct<item_id: {item}, score: float>>"

SCHEMAS: Final[dict[str, str]] = {
    "events": (
        "user_id {user}, item_id {item}, event_ts timestamp, event_type string, session_id string, "
        "label double, drop_ds date, ds date, event_id string, repeat int, superseded_by date"
    ),
    "events_quarantine": (
        "drop_ds date, source string, reason string, row string, file string, location string, value string, "
        "user_id string, loaded boolean"
    ),
    "loaded_drops": "source string, drop_ds date, had_files boolean",
    "candidate_bank": (
        "item_id {item}, model_version string, link_weights binary, head_input binary, dot binary, "
        "fingerprint string, checksum long"
    ),
    "item_bias": (
        "ds date, item_id {item}, model_version string, recent_count long, bias float, eligible long"
    ),
    "user_link_states": (
        "bucket int, user_id {user}, model_version string, as_of date, events_version long, "
        "event_count long, history_xor long, history_sum long, last_event_ts timestamp, "
        "slots array<long>, weights array<float>, state binary, "
        "fingerprint string, checksum long"
    ),
    "user_memory": (
        "bucket int, user_id {user}, model_version string, as_of date, items array<{item}>, "
        "counts array<long>, first_ts array<timestamp>, last_ts array<timestamp>, decays binary, "
        "features binary, "
        "fingerprint string, checksum long"
    ),
    "staging": (
        "run_id string, bucket int, policy string, user_id {user}, candidates "
        + CANDIDATES
        + ", shortfall int, pairs long, avoided long, fault string, anchor string, kept_items array<{item}>, "
        "kept_z binary, tau float, fingerprint string, checksum long"
    ),
    "candidate_history": (
        "run_id string, item_id {item}, fingerprint string, bias float, since int, reference float, "
        "biases array<float>"
    ),
    "recommendations": (
        "ds date, user_id {user}, candidates "
        + CANDIDATES
        + ", shortfall int, fault string, model_version string, run_id string"
    ),
    "bank_quarantine": "run_id string, item_id {item}, reason string",
    "leases": "ds date, epoch long, run_key string, holder string, job string, attempt long",
    "champions": (
        "number long, model string, valid_from date, model_version string, reason string, evidence string"
    ),
    "runs": "run_id string, ds date, job string, seconds double, manifest string",
}

# Of Delta, by table.
PROPERTIES: Final[dict[str, dict[str, str]]] = {
    "events": {"delta.enableChangeDataFeed": "true"},  # states follow it, see histories.py
    # A night that changes few rows marks the old ones and leaves their files as they are.
    "candidate_bank": {"delta.enableDeletionVectors": "true"},
    "user_link_states": {"delta.enableDeletionVectors": "true"},
    "user_memory": {"delta.enableDeletionVectors": "true"},
    # Each step of a night commits a row here: a checkpoint every ten commits would be one in every night.
    "runs": {"delta.checkpointInterval": "50"},
    "leases": {"delta.checkpointInterval": "50"},
}

# What a row of a table is, whoever writes it: Delta refuses any other. By table and name.
CONSTRAINTS: Final[dict[str, dict[str, str]]] = {
    "events": {"has_key": "user_id IS NOT NULL AND item_id IS NOT NULL AND event_ts IS NOT NULL"},
    "leases": {"epochs_count_from_1": "epoch >= 1"},
    "item_bias": {"finite_bias": "NOT isnan(bias) AND abs(bias) < double('infinity')"},
    "recommendations": {
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
}

PARTITIONS: Final[dict[str, list[str]]] = {
    "events": [DS],
    "events_quarantine": [DROP_DS],
    "candidate_bank": [MODEL_VERSION],
    "item_bias": [DS],
    "user_link_states": [MODEL_VERSION],
    "user_memory": [MODEL_VERSION],
    "staging": [RUN_ID],
    "candidate_history": [RUN_ID],
    "recommendations": [DS],
}
