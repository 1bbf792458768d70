"""Decide which bundle of a model a night uses: the champion on its date.

`champions` is a table of decisions next to the bundles. Each decision is one commit, so a promotion is atomic
and the history is kept: a backfill of a past night finds the champion of that date, and going back to an
earlier bundle is one more decision. A bundle is never the champion of a night before its cut-off, so no
bundle was trained on the events that it must predict.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, NamedTuple

from lime_model.bundle import BundleError
from pipelines.models.bundles import bundle_uri, find_bundle
from pipelines.store.frames import local_rows
from pipelines.store.storage import list_names
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import WriteConflict

TABLE = "champions"


class Decision(NamedTuple):
    """A decision that the bundle `model_version` is the champion of `model` from night `valid_from` on."""

    number: int  # the number of the decision among those of the model, from 1
    model: str
    valid_from: str
    model_version: str
    reason: str
    evidence: str  # JSON


def decisions(warehouse: Warehouse, model: str) -> list[Decision]:
    """Return all decisions about a model, the oldest first."""
    rows = [row for row in warehouse.read_cached(TABLE) if row["model"] == model]
    found = [
        Decision(r["number"], model, str(r["valid_from"]), r["model_version"], r["reason"], r["evidence"])
        for r in rows
    ]
    return sorted(found)


def find_champion(warehouse: Warehouse, model: str, night: str) -> str | None:
    """Return the model version of the champion of a night, or None if there is none yet.

    Args:
        warehouse: the warehouse that contains the decisions.
        model: the name of the model.
        night: the date of the night (YYYY-MM-DD).
    """
    known = _known(warehouse, model, night)
    return known[-1].model_version if known else None


def _known(warehouse: Warehouse, model: str, night: str) -> list[Decision]:
    """Return the decisions that are valid on a night; the last of them applies.

    They are sorted by the date from which they are valid. So a late decision about an earlier date, such as
    one of a backfill, does not change the nights from the date of a later decision on.
    """
    found = [decision for decision in decisions(warehouse, model) if decision.valid_from <= night]
    return sorted(found, key=lambda decision: (decision.valid_from, decision.number))


def need_champion(warehouse: Warehouse, model: str, night: str) -> str:
    """Return the model version of the champion of a night.

    Args:
        warehouse: the warehouse that contains the decisions.
        model: the name of the model.
        night: the date of the night (YYYY-MM-DD).

    Raises:
        BundleError: the model has no champion on that night.
    """
    found = find_champion(warehouse, model, night)
    if found is None:
        known = decisions(warehouse, model)
        first = f"; its first is valid from {min(d.valid_from for d in known)}" if known else ""
        raise BundleError(
            f"model {model!r} has no bundle for night {night} at {bundle_uri(warehouse, model)}{first}; "
            f"train one with lime train --ds {night} --model {model}"
        )
    return found


def promote(
    warehouse: Warehouse,
    model: str,
    version: str,
    *,
    valid_from: str,
    reason: str,
    evidence: dict[str, Any] | None = None,
) -> bool:
    """Make a stored bundle the champion from a night on.

    Args:
        warehouse: the warehouse that contains the decisions.
        model: the name of the model.
        version: the model version of the bundle.
        valid_from: the date (YYYY-MM-DD) of the first night that uses the bundle.
        reason: a text that is stored with the decision.
        evidence: values that are stored with the decision as JSON, such as metrics.

    Returns:
        Whether this changed anything; it does not if the bundle is the champion already.

    Raises:
        BundleError: the bundle is missing or damaged, or was trained on events of that night or later.
        WriteConflict: another decision about this model was written first.
    """
    if find_champion(warehouse, model, valid_from) == version:
        return False
    cutoff = find_bundle(warehouse, model, version).config.cutoff_ds
    if cutoff > valid_from:
        raise BundleError(
            f"bundle {version} of {model!r} was trained on events before {cutoff} and can't serve night "
            f"{valid_from}: it has seen what comes after; promote it from {cutoff} on"
        )
    number = max((decision.number for decision in decisions(warehouse, model)), default=0) + 1
    mine = Decision(number, model, valid_from, version, reason, json.dumps(evidence or {}, default=str))
    row = {**mine._asdict(), "valid_from": dt.date.fromisoformat(valid_from)}
    rows = local_rows(warehouse.spark, [row], warehouse.schema(TABLE))
    warehouse.append(TABLE, rows, txn=(f"champion-{model}", number))
    if decisions(warehouse, model)[-1] != mine:
        raise WriteConflict(f"another decision about model {model!r} came first; look at it and decide again")
    return True


def roll_back_model(warehouse: Warehouse, model: str, night: str, reason: str, to: str | None) -> str:
    """Make an earlier bundle the champion again from a night on.

    Args:
        warehouse: the warehouse that contains the decisions.
        model: the name of the model.
        night: the date (YYYY-MM-DD) of the first night that uses the earlier bundle.
        reason: a text that is stored with the decision.
        to: the model version of the bundle; None chooses the champion before the present one.

    Returns:
        The model version of the new champion.

    Raises:
        BundleError: there is no earlier bundle, the last decision already went back and `to` is None, or
            `promote` refuses the bundle.
        WriteConflict: another decision about this model was written first.
    """
    now = need_champion(warehouse, model, night)
    stored = list_names(warehouse.spark, bundle_uri(warehouse, model))
    if to is not None and to not in stored:
        raise BundleError(
            f"model {model!r} has no bundle {to!r} at {bundle_uri(warehouse, model)}; it has {stored}"
        )
    last = _known(warehouse, model, night)[-1]
    if to is None and (taken := json.loads(last.evidence).get("instead_of")):
        # Otherwise a command that is sent twice would go back to the bundle that it took back.
        raise BundleError(
            f"model {model!r}: bundle {taken} was taken back already from night {last.valid_from} on (its "
            f"reason: {last.reason!r}), and {now} is the champion; nothing was changed. To go to "
            "another bundle, name it with --to"
        )
    past = [decision for decision in _known(warehouse, model, night) if decision.model_version != now]
    if to is None and not past:
        raise BundleError(
            f"model {model!r}: {now} is the only bundle that was ever promoted; nothing to go back to"
        )
    chosen = to or past[-1].model_version
    promote(warehouse, model, chosen, valid_from=night, reason=reason, evidence={"instead_of": now})
    return chosen
