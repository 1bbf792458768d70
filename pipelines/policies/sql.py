"""The rules of policies as columns of Spark."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.policies.rules import ExcludeSeen


def eligibility_bits(rules: Sequence[str]) -> Column:
    """Evaluate each policy's rule of eligibility over the item columns: one bit of a long for each rule.

    A rule that is null counts as false.
    """
    bits = F.lit(0).cast("long")
    for index, rule in enumerate(rules):
        bits = bits.bitwiseOR(F.when(F.expr(rule), F.lit(1 << index)).otherwise(0).cast("long"))
    return bits


def eligible_bit(index: int, bits: str = "eligible") -> Column:
    """Return 1 where the policy at `index` may recommend the item, else 0."""
    return F.shiftright(F.col(bits), index).bitwiseAND(F.lit(1))


def seen_items(seen: ExcludeSeen, night: str) -> Column:
    """List the items that a policy excludes, from `items` and `last_ts` of a user's repeat memory."""
    if seen == "none":
        return F.slice("items", 1, 0)
    if seen == "all":
        return F.col("items")
    since = F.date_sub(F.lit(night).cast("date"), int(seen)).cast("timestamp")
    recent = F.filter(F.arrays_zip("items", "last_ts"), lambda pair: pair["last_ts"] >= since)
    return F.transform(recent, lambda pair: pair["items"])
