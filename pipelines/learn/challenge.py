"""A newly trained bundle against the champion and the baselines, on days that neither has seen.

The challenger learns from what lies before the last `horizon_days` and both are measured on those days. It is
promoted when it is better than the champion by the set margin and no worse than any baseline; else the
champion stays. What was measured is kept with the decision, and it is the measured bundle that is promoted.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, NamedTuple

from pipelines.learn.evaluate import Contestant, evaluate_bundles
from pipelines.learn.train import train_bundles
from pipelines.models.bundles import find_bundle
from pipelines.models.champions import find_champion, promote
from pipelines.store.manifests import ChallengeManifest
from pipelines.store.runs import record
from pipelines.store.tables import Warehouse

CHALLENGER, CHAMPION = "challenger", "champion"


def challenge(warehouse: Warehouse, night: str, model: str) -> ChallengeManifest:
    """Train a challenger, measure it, and promote it from `night` on when it is better.

    Args:
        warehouse: that holds log and bundles.
        night: the date from which on a better challenger is the champion.
        model: name of the model.

    Returns:
        What was measured and decided, and why.
    """
    limits = warehouse.settings.promotion
    cut = str(dt.date.fromisoformat(night) - dt.timedelta(days=limits.horizon_days))
    version = train_bundles(warehouse, cut, [model])[model].model_version
    contestants = {CHALLENGER: Contestant(model, version)}
    now = find_champion(warehouse, model, night)
    better, rows = False, None
    if version == now:
        why = "it is the champion: nothing has changed since it was trained"
    elif now and (seen := find_bundle(warehouse, model, now).config.cutoff_ds) > cut:
        why = f"the champion was trained on events before {seen} and has seen days that would judge; it stays"
    else:
        if now:
            contestants[CHAMPION] = Contestant(model, now)
        rows = evaluate_bundles(
            warehouse, cut, f"challenge-{version}", contestants, horizon_days=limits.horizon_days,
            min_events=limits.min_events,
        ).rows  # fmt: skip
        verdict = judge(rows, limits.margin)
        better, why = verdict.promoted, verdict.why
        if better:
            promote(warehouse, model, version, valid_from=night, reason=why, evidence={"rows": rows})
    decision = ChallengeManifest(
        model=model, night=night, challenger=version, champion=now, promoted=better, why=why, rows=rows
    )
    record(warehouse, f"{night}.challenge-{model}", night, decision)
    return decision


class Verdict(NamedTuple):
    """Whether the challenger is promoted, and why."""

    promoted: bool
    why: str


def judge(rows: list[dict[str, Any]], margin: float) -> Verdict:
    """Decide by recall under the first policy, or by the AUC of labels.

    Args:
        rows: of `evaluate_bundles`.
        margin: by how much the challenger must be above the champion.
    """
    measure = "recall" if "recall" in rows[0] else "auc"
    first = rows[0]["policy"]
    values = {row["model"]: float(row[measure]) for row in rows if row["policy"] == first}
    mine = values.pop(CHALLENGER)
    champion = values.pop(CHAMPION, None)
    best = max(values, key=lambda name: values[name], default=None)
    said = f"{measure} {mine:.4f}"
    if any(map(math.isnan, [mine, *values.values(), *([champion] if champion is not None else [])])):
        return Verdict(False, f"{measure} can't be told on these days: their labels are all the same")
    if best is not None and mine < values[best]:
        return Verdict(False, f"{said} is below that of {best}, {values[best]:.4f}")
    if champion is None:
        return Verdict(True, f"{said}; there was no champion")
    if mine <= champion or mine < champion + margin:
        why = f"{said} is not above the champion's {champion:.4f} by the margin of {margin:g}"
        return Verdict(False, why)
    return Verdict(True, f"{said} is above the champion's {champion:.4f} by the margin of {margin:g}")
