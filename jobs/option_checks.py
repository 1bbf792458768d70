"""The checks of options that do not fit together, for the definitions of the commands."""

from __future__ import annotations

import argparse
import os


def check_days(args: argparse.Namespace) -> str | None:
    """Return what is wrong with the days whose drops are to be loaded."""
    whole_range = bool(args.first and args.last)
    if bool(args.ds) == whole_range or bool(args.first) != bool(args.last):
        return "give either --ds NIGHT or both --from DAY and --to DAY"
    if whole_range and args.first > args.last:
        return f"--from {args.first} is after --to {args.last}; swap them"
    return None


def check_user(args: argparse.Namespace) -> str | None:
    """Return what is wrong with the options that name a user."""
    if bool(args.user) == bool(args.user_env):
        return "give either --user ID or --user-env VARIABLE"
    if args.user_env and not os.environ.get(args.user_env):
        return f"--user-env {args.user_env}: this environment variable is not set; put the user id into it"
    return None


def check_rollback(args: argparse.Namespace) -> str | None:
    """Return what is wrong with the options of a rollback."""
    if args.model and args.expected:
        return "--from names a run of a night, so it cannot be combined with --model"
    return None
