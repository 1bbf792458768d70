"""Run `lime check`: print a table of checks of the settings and of this machine."""

from __future__ import annotations

import argparse

from rich.table import Table
from rich.text import Text

from jobs.endings import EXIT_CODES
from jobs.lime.console import open_console
from jobs.lime.output import print_json
from pipelines.operate.drop_checks import Check
from pipelines.operate.machine_checks import check_machine

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "not checked": "dim"}


def run(args: argparse.Namespace) -> int:
    """Make all checks and print them; return 3 if one has failed."""
    checks = check_machine(args.config)
    code = EXIT_CODES["person"] if any(check.state == "failed" for check in checks) else 0
    if args.json:
        print_json({"command": "check", "exit_code": code, "checks": [check._asdict() for check in checks]})
        return code
    console = open_console()
    console.print(_table(checks))
    states = [check.state for check in checks]
    counted = ", ".join(f"{states.count(state)} {state}" for state in STYLES if state in states)
    console.print(f"{args.config}: {counted}")
    return code


def _table(checks: list[Check]) -> Table:
    table = Table()
    remedies = any(check.remedy for check in checks)
    for name in ("check", "state", "what was found", *(["remedy"] if remedies else [])):
        table.add_column(name, overflow="fold")
    for check in checks:
        state = Text(check.state, style=STYLES[check.state])
        table.add_row(check.name, state, check.found, *([check.remedy] if remedies else []))
    return table
