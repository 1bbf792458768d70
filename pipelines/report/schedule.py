"""Derive the usual interval of nights from those that ran, and find the nights that are missing."""

from __future__ import annotations

import datetime as dt
import itertools
import statistics
from collections import Counter
from collections.abc import Sequence


def find_missing(days: Sequence[dt.date]) -> list[list[dt.date]]:
    """Find the nights that are missing, such as a Tuesday of daily nights or a week of weekly ones.

    A night that is late by less than half of the usual interval is not missing: months have 28 to 31 days.

    Args:
        days: the dates of the nights, the oldest first.

    Returns:
        The missing dates between each night and the next one that ran, without those where none is missing.
    """
    gaps = [(after - before).days for before, after in itertools.pairwise(days)]
    usual = [_usual(days, gaps, weekday) for weekday in range(7)] if gaps else []
    found = []
    for before, after in itertools.pairwise(days):
        lost, day = [], before + dt.timedelta(days=usual[before.weekday()])
        while day < after and 2 * (after - day).days >= usual[day.weekday()]:
            lost.append(day)
            day += dt.timedelta(days=usual[day.weekday()])
        found += [lost] if lost else []
    return found


def _usual(days: Sequence[dt.date], gaps: Sequence[int], weekday: int) -> int:
    """Return the usual days from a day of the week to the next night, such as three from a Friday.

    Args:
        days: the dates of the nights.
        gaps: the days from each night to the next one.
        weekday: the day of the week, 0 for Monday.
    """
    mine = [gap for day, gap in zip(days, gaps, strict=False) if day.weekday() == weekday]
    if mine:
        gap, times = Counter(mine).most_common(1)[0]
        if times > 1 and 2 * times >= len(mine) and gap < 7:
            return gap
    return statistics.median_low(gaps)
