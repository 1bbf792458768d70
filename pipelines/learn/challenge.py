"""A newly trained bundle against the champion and the baselines, on days that neither has seen.

The challenger learns from what lies before the last `horizon_days` and both are measured on those days. It is
promoted when it is better than the champion by the set margin and no worse than any baseline; else the
champion stays. What was measured is kept with the decision, and it is the measured bundle that is promoted.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from pipelines.learn.evaluate import Contestant, evaluate_bundles
from pipelines.learn.train import train_bundles
from pipelines.models.bundles import find_bundle
from pipelines.models.champions import find_champion, promote
from pipelines.store.runs import Manifest, record
from pipelines.store.tables import Warehouse

CHALLENGER, CHAMPION = "challenger", "champion"


def challenge(warehouse: Warehouse, night: str, model: str) -> Manifest:
    """Train, measure, and promote from `night` on when it is better; says what was decided and why."""
    limits = warehouse.settings.promotion
    cut = str(dt.date.fromisoformat(night) - dt.timedelta(days=limits.horizon_days))
    version = train_bundles(warehouse, cut, [model])[model]["model_version"]
    contestants = {CHALLENGER: Contestant(model, version)}
    now = find_champion(warehouse, model, night)
    found: Manifest = {
        "model": model,
        "night": night,
        "challenger": version,
        "champion": now,
        "promoted": False,
    }
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
        )["rows"]  # fmt: skip
        better, why = judge(rows, limits.margin)
        found |= {"rows": rows, "promoted": better}
        if better:
            promote(warehouse, model, version, valid_from=night, reason=why, evidence={"rows": rows})
    found["why"] = why
    record(warehouse, f"{night}.challenge-{model}", night, "challenge_model", found)
    return found


def judge(rows: list[dict[str, Any]], margin: float) -> tuple[bool, str]:
    """Whether the challenger takes over, and why: recall under the first policy, or the AUC of labels."""
    measure = "recall" if "recall" in rows[0] else "auc"
    first = rows[0]["policy"]
    values = {row["model"]: float(row[measure]) for row in rows if row["policy"] == first}
    mine = values.pop(CHALLENGER)
    champion = values.pop(CHAMPION, None)
    best = max(values, key=lambda name: values[name], default=None)
    said = f"{measure} {mine:.4f}"
    if any(map(math.isnan, [mine, *values.values(), *([champion] if champion is not None else [])])):
        return False, f"{measure} can't be told on these days: their labels are all the same"
    if best is not None and mine < values[best]:
        return False, f"{said} is below that of {best}, {values[best]:.4f}"
    if champion is None:
        return True, f"{said}; there was no champion"
    if mine <= champion or mine < champion + margin:
        return False, f"{said} is not above the champion's {champion:.4f} by the margin of {margin:g}"
    return True, f"{said} is above the champion's {champion:.4f} by the margin of {margin:g}"
