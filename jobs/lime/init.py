"""Run `lime init`: look at a person's own data, ask what it does not tell, and write settings and drops."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from jobs.endings import EXIT_CODES
from jobs.lime.commands import INIT
from jobs.lime.console import open_console
from jobs.lime.output import print_json
from pipelines.onboard.begin import begin
from pipelines.onboard.begun import BAD_ROWS, Begun
from pipelines.onboard.guesses import NONE, Guess, some
from pipelines.udfs.times import check_zone

NOT_ANSWERS = ("drops", "config", "yes")


def run(args: argparse.Namespace) -> int:
    """Look, ask, write and try; return 3 if the day that was tried has faults."""
    names = [option.dest for option in INIT.options if option.dest not in NOT_ANSWERS]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    person = sys.stdin.isatty() and not args.yes and not args.json
    begun = begin(Path(args.drops), Path(args.config), given, ask if person else None, say)
    code = EXIT_CODES["person"] if begun.faults else 0
    if args.json:
        print_json({"command": "init", "exit_code": code, **report(begun)})
    else:
        show(begun)
    return code


def say(line: str) -> None:
    """Print what is being done on stderr, so that stdout is the result alone."""
    print(line, file=sys.stderr, flush=True)


def ask(guess: Guess) -> str:
    """Ask a person on the terminal; an empty answer takes the guess."""
    console = open_console()
    console.print(Text(guess.question, style="bold"), guess.why)
    if guess.choices:
        console.print(f"  one of: {some(guess.choices)}")
    default = guess.value if guess.value is not None or not guess.optional else NONE
    while True:
        answer = str(typer.prompt(f"--{guess.option.replace('_', '-')}", default=default)).strip()
        if guess.choices and answer not in guess.choices and not (guess.optional and answer == NONE):
            console.print(f"{answer!r} is none of them")
            continue
        try:
            return check_zone(answer) if guess.option.endswith("timezone") else answer
        except ValueError as error:
            console.print(str(error))


def report(begun: Begun) -> dict[str, Any]:
    """Return everything that was found as values of JSON."""
    return {
        "config": str(begun.config),
        "guesses": {guess.option: {"value": guess.value, "why": guess.why} for guess in begun.guesses},
        "questions": begun.asked,
        "rows": begun.rows,
        "written": begun.written,
        "unreadable": len(begun.unreadable),
        "first": min(begun.days),
        "last": max(begun.days),
        "users": begun.amounts.users,
        "items": begun.amounts.items,
        "notes": [note._asdict() for note in begun.notes],
        "tried": [each._asdict() for each in begun.tries],
        "faults": begun.faults,
        "next": begun.commands,
        "evaluate": begun.evaluation,
    }


def show(begun: Begun) -> None:
    """Print what was found, what is odd, the faults and the next commands."""
    console = open_console()
    table = Table(title="What was found", title_justify="left")
    for name in ("question", "answer", "because"):
        table.add_column(name, overflow="fold")
    for guess in begun.guesses:
        table.add_row(guess.question, guess.value or NONE, guess.why)
    console.print(table)
    amounts = begun.amounts
    console.print(
        f"{begun.rows:,} rows; {amounts.rows:,} events of {amounts.users:,} users and {amounts.items:,} "
        f"items, from {min(begun.days)} to {max(begun.days)}"
    )
    if begun.written:
        console.print(
            f"{begun.written:,} rows were written into daily drops in {begun.config.parent / 'raw'}"
        )
    if begun.unreadable:
        first = begun.unreadable[0]
        place = f"; all are listed in {begun.config.parent / BAD_ROWS}" if begun.written else ""
        console.print(
            f"{len(begun.unreadable):,} rows can't be read, such as {first.file} line {first.line:,}: "
            f"{first.problem}{place}"
        )
    for note in begun.notes:
        console.print(f"- {note.said}")
    for each in begun.tries:
        console.print(
            f"tried {each.source} of {each.day}: {each.delivered:,} rows, {each.filtered:,} filtered, "
            f"{each.bad:,} bad"
        )
    for fault in begun.faults:
        console.print(Text(f"fault: {fault}", style="bold red"))
    console.print(f"\nThe settings are in {begun.config}. Next:")
    for command in begun.commands:
        console.print(f"  {command}", soft_wrap=True)
    console.print(f"To measure a model on the last {begun.horizon:,} days, after lime ingest:")
    for command in begun.evaluation:
        console.print(f"  {command}", soft_wrap=True)
