"""The options of the jobs; each value is checked here, before anything starts."""

from __future__ import annotations

import argparse
import datetime as dt
import math
from typing import Any

from jobs.options import CONFIG, RESULT, VERBOSE, Option
from pipelines.settings.names import check_run_key
from pipelines.udfs.times import FIRST_DAY, LAST_DAY

LONGEST_EVALUATION = 100  # characters; this key becomes part of a folder's name, with a model's name and more


def parser(job: str, about: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every job has."""
    options = argparse.ArgumentParser(
        prog=f"jobs/{job}.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    for option in (CONFIG, VERBOSE, RESULT):
        add_option(options, option)
    return options


def add_option(options: argparse.ArgumentParser, option: Option) -> None:
    """Add an option to the parser of a script."""
    if option.kind == "switch":
        options.add_argument(option.flag, dest=option.dest, action="store_true", help=option.help)
        return
    shown = "" if option.default is None else " (default: %(default)s)"
    more: dict[str, Any] = {"repeated": {"action": "append"}, "several": {"nargs": "+"}}.get(option.kind, {})
    options.add_argument(
        option.flag,
        dest=option.dest,
        type=option.check,
        default=option.default,
        required=option.required,
        metavar=option.metavar,
        choices=option.choices,
        help=option.help + shown,
        **more,
    )


def night_date(text: str) -> str:
    """Parse an ISO date, or raise argparse's error."""
    try:
        day = dt.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2017-12-04") from error
    if not FIRST_DAY <= day <= LAST_DAY:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date from {FIRST_DAY} to {LAST_DAY}")
    return str(day)


def run_key(text: str) -> str:
    """Check a run key, or raise argparse's error."""
    try:
        return check_run_key(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def short_run_key(text: str) -> str:
    """Check a run key that becomes part of a folder's name, or raise argparse's error."""
    if len(run_key(text)) > LONGEST_EVALUATION:
        raise argparse.ArgumentTypeError(
            f"the run key has {len(text)} characters; this job allows {LONGEST_EVALUATION} at most"
        )
    return text


def count(text: str) -> int:
    """Parse a whole number from 1 to 100000, or raise argparse's error."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100000")
    return int(text)


def price(text: str) -> float:
    """Parse an amount of money, or raise argparse's error."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price like 0.05")
    return value


def words(text: str) -> str:
    """Return a text without surrounding spaces, or raise argparse's error for an empty one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; say why, it is kept with what was done")
    return text.strip()
