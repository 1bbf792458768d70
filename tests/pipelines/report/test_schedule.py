"""The usual interval of nights comes from the nights that ran, and only what breaks it is missing."""

from __future__ import annotations

import datetime as dt

import pytest

from pipelines.report.schedule import find_missing

MONDAY = dt.date(2024, 4, 1)


def days(*numbers: int) -> list[dt.date]:
    """Return days by their number of days after a Monday."""
    return [MONDAY + dt.timedelta(days=number) for number in numbers]


WORKDAYS = [week * 7 + day for week in range(4) for day in range(5)]
DAILY, WEEKLY, THIRD = range(30), range(0, 70, 7), range(0, 60, 3)


@pytest.mark.parametrize(
    "schedule", [DAILY, WEEKLY, THIRD, WORKDAYS], ids=["day", "week", "3 days", "workday"]
)
def test_a_schedule_that_is_kept_lacks_nothing_and_each_night_is_missed(schedule: list[int]) -> None:
    assert find_missing(days(*schedule)) == []
    for lost in list(schedule)[8:-1]:
        assert find_missing(days(*(day for day in schedule if day != lost))) == [days(lost)]


def test_months_are_equal_intervals() -> None:
    first = [dt.date(2024, month, 1) for month in range(1, 13)]
    assert find_missing(first) == []
    lost = find_missing([day for day in first if day.month != 6])
    assert [len(each) for each in lost] == [1]
    assert abs((lost[0][0] - dt.date(2024, 6, 1)).days) <= 1


def test_several_nights_in_a_row_and_apart_are_found() -> None:
    ran = [day for day in DAILY if day not in (5, 6, 7, 20)]
    assert find_missing(days(*ran)) == [days(5, 6, 7), days(20)]


@pytest.mark.parametrize("ran", [(), (3,), (3, 40)])
def test_few_nights_have_no_schedule(ran: tuple[int, ...]) -> None:
    assert find_missing(days(*ran)) == []
