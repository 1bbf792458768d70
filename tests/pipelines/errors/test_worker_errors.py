"""Only an error of ours is taken from a worker's traceback, and never in place of a bug."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from lime_model.bundle import BundleError
from lime_model.errors import LimeError
from pipelines.errors.worker_errors import find_error


def text_of(work: Callable[[], None]) -> str:
    """Return the text of Spark's error for an error in a worker, with Java frames around it."""
    try:
        work()
    except (LimeError, ValueError):
        printed = traceback.format_exc()
    return f"Job aborted: thrown from the Python worker:\n{printed}\n\tat org.apache.spark.Task.run\n"


def ours() -> None:
    raise BundleError("the bank is broken: train again")


def ours_after_another() -> None:
    try:
        raise KeyError("no such column")
    except KeyError as error:
        raise BundleError("the bank is broken: train again") from error


def a_bug_while_handling_ours() -> None:
    try:
        ours()
    except BundleError:
        raise ValueError("a bug") from None


def a_bug_after_ours() -> None:
    try:
        ours()
    finally:
        raise ValueError("a bug")


@pytest.mark.parametrize("work", [ours, ours_after_another])
def test_an_error_of_ours_reaches_the_driver_unchanged(work: Callable[[], None]) -> None:
    found = find_error(text_of(work))
    assert isinstance(found, BundleError)
    assert str(found) == "the bank is broken: train again"


@pytest.mark.parametrize("work", [a_bug_while_handling_ours, a_bug_after_ours])
def test_a_bug_is_never_hidden_behind_one_of_ours(work: Callable[[], None]) -> None:
    assert find_error(text_of(work)) is None


def test_other_text_is_not_an_error_of_ours() -> None:
    assert find_error("java.lang.OutOfMemoryError: Java heap space") is None
