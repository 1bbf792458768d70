"""The rules of policies as columns of Spark."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.settings.night import Policy


def eligibility_bits(policies: Sequence[Policy]) -> Column:
    """Evaluate each policy's rule over the item columns: one bit of a long for each policy, in their order.

    A rule that is null counts as false.
    """
    bits = F.lit(0).cast("long")
    for index, policy in enumerate(policies):
        bits = bits.bitwiseOR(F.when(F.expr(policy.eligible), F.lit(1 << index)).otherwise(0).cast("long"))
    return bits


def eligible_bit(index: int, bits: str = "eligible") -> Column:
    """Return 1 where the policy at `index` may recommend the item, else 0."""
    return F.shiftright(F.col(bits), index).bitwiseAND(F.lit(1))


def seen_items(policy: Policy, night: str) -> Column:
    """List the items that a policy keeps from a user, from `items` and `last_ts` of the repeat memory."""
    if policy.exclude_seen == "none":
        return F.slice("items", 1, 0)
    if policy.exclude_seen == "all":
        return F.col("items")
    since = F.date_sub(F.lit(night).cast("date"), int(policy.exclude_seen)).cast("timestamp")
    recent = F.filter(F.arrays_zip("items", "last_ts"), lambda pair: pair["last_ts"] >= since)
    return F.transform(recent, lambda pair: pair["items"])
