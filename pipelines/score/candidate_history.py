"""Record what each run's candidates were, so that a later run finds those that changed.

The table `candidate_history` also has the biases of the anchor nights. Changes and reference biases are read
from the rows of the base run, not from times or old Delta versions, which a vacuum may remove.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lime_model.scoring.incremental.night_changes import day_number
from pipelines.models.pinned_inputs import NightInputs
from pipelines.policies.sql import eligible_bit
from pipelines.schemas import CHECKSUM, DS, FINGERPRINT, ITEM_ID, MODEL_VERSION, RUN_ID
from pipelines.store.leases import Run
from pipelines.store.manifests import BaseRun
from pipelines.store.tables import Warehouse

TABLE = "candidate_history"


def write_candidates(warehouse: Warehouse, run: Run, inputs: NightInputs, base: BaseRun | None) -> None:
    """Write the rows of the run's candidates; a retry does not write them again.

    `since` is the night (days since 1970) on which a candidate last changed, and `reference` is its bias on
    that night. `biases` are its biases on the anchor nights of the base, null where it was not a candidate.

    Args:
        warehouse: holds the tables.
        run: the run that is scored.
        inputs: gives the versions of bank and bias.
        base: the run that the night starts from; None for a full night.
    """
    candidates = _read_candidates(warehouse, run, inputs)
    form = {"since": F.lit(day_number(run.ds)), "reference": F.col("bias")}
    biases: list[Column] = []
    if base:
        before = warehouse.read(TABLE).where(F.col(RUN_ID) == base.run_id)
        carried = (FINGERPRINT, "since", "reference", "bias", "biases")
        before = before.select(ITEM_ID, *(F.col(name).alias(f"was_{name}") for name in carried))
        candidates = candidates.join(before, ITEM_ID, "left")
        same = F.coalesce(F.col(f"was_{FINGERPRINT}") == F.col(FINGERPRINT), F.lit(False))
        form = {name: F.when(same, F.col(f"was_{name}")).otherwise(new) for name, new in form.items()}
        known = {anchor: F.get("was_biases", F.lit(i)) for i, anchor in enumerate(base.held)}
        known[base.run_id] = F.col("was_bias")
        biases = [known[anchor] for anchor in base.anchors]
    every = F.array(*biases).cast("array<float>")
    rows = candidates.withColumns({RUN_ID: F.lit(run.run_id), **form, "biases": every})
    warehouse.append(TABLE, rows, txn=(f"candidates-{run.run_id}", 1))


def _read_candidates(warehouse: Warehouse, run: Run, inputs: NightInputs) -> DataFrame:
    """Read `item_id, fingerprint, bias` of the items that the published policy may recommend."""
    mine = F.col(MODEL_VERSION) == inputs.model_version
    # The checksum is included: the same inputs may give another last digit on another processor.
    form_now = F.hex(F.xxhash64(FINGERPRINT, CHECKSUM)).alias(FINGERPRINT)
    bank = warehouse.read("candidate_bank", inputs.bank).where(mine).select(ITEM_ID, form_now)
    bias = warehouse.read("item_bias", inputs.bias).where(mine & (F.col(DS) == F.lit(run.ds).cast("date")))
    return bias.where(eligible_bit(0) == 1).select(ITEM_ID, "bias").join(bank, ITEM_ID, "inner")
