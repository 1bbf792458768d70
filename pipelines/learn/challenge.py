"""Compare a newly trained bundle with the champion and the baselines, on days that no bundle was trained on.

The challenger is trained on the events before the last `horizon_days` days, and both bundles are measured on
those days. The challenger is promoted if it is better than the champion by the margin of the settings and no
worse than any baseline; otherwise the champion stays. The metrics are stored with the decision, and the
bundle that is promoted is the one that was measured.
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
    """Train a challenger, measure it, and promote it from `night` on if it is better.

    Args:
        warehouse: the warehouse that contains the log; its settings name the storage of bundles.
        night: the date (YYYY-MM-DD) of the first night that a better challenger serves.
        model: the name of the model.

    Returns:
        The metrics, the decision and its reason.
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
    """The decision whether the challenger is promoted, and the reason."""

    promoted: bool
    why: str


def judge(rows: list[dict[str, Any]], margin: float) -> Verdict:
    """Decide by recall under the first policy, or by the AUC of labels.

    Args:
        rows: the rows of the manifest that `evaluate_bundles` returns.
        margin: how much higher than the champion's the challenger's recall or AUC must be.
    """
    measure = "recall" if "recall" in rows[0] else "auc"
    first = rows[0]["policy"]
    values = {row["model"]: float(row[measure]) for row in rows if row["policy"] == first}
    mine = values.pop(CHALLENGER)
    champion = values.pop(CHAMPION, None)
    best = max(values, key=lambda name: values[name], default=None)
    said = f"{measure} {mine:.4f}"
    if any(map(math.isnan, [mine, *values.values(), *([champion] if champion is not None else [])])):
        return Verdict(False, f"{measure} can't be computed on these days: their labels are all the same")
    if best is not None and mine < values[best]:
        return Verdict(False, f"{said} is below that of {best}, {values[best]:.4f}")
    if champion is None:
        return Verdict(True, f"{said}; there was no champion")
    if mine <= champion or mine < champion + margin:
        why = f"{said} is not above the champion's {champion:.4f} by the margin of {margin:g}"
        return Verdict(False, why)
    return Verdict(True, f"{said} is above the champion's {champion:.4f} by the margin of {margin:g}")
