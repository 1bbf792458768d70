"""The help of `lime` and of its commands: the examples come first, then the options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from jobs.lime.commands import COMMANDS
from jobs.lime.console import open_console
from jobs.options import Definition

FIRST_STEPS = (
    ("lime init orders.csv", "write settings and drops for your own data"),
    ("lime check", "are the settings and this machine ready?"),
    ("lime train --ds 2017-12-04", "train the models on everything before this day"),
    ("lime night --ds 2017-12-04", "score, certify, audit, publish and export a night"),
    ('lime rollback --ds 2017-12-04 --reason "prices were wrong"', "take it back"),
)
Row = tuple[str, str]


def write_command_help(command: Any, definition: Definition, ctx: Any, formatter: Any) -> None:
    """Write the help of a command.

    Args:
        command: the command of Typer.
        definition: what the command does, and its examples.
        ctx: the context of the call.
        formatter: collects the text, which Typer prints.
    """
    examples = [(f"lime {command.name} {example}".strip(), "") for example in definition.examples]
    details = [" ".join(part.split()) for part in definition.details.split("\n\n") if part]
    sections = {"Examples": examples, "Options": _options(command, ctx)}
    formatter.write(_render(definition.summary, sections, [*details, _usage(command, ctx)]))


def write_group_help(group: Any, ctx: Any, formatter: Any) -> None:
    """Write the help of `lime` itself.

    Args:
        group: the group of commands.
        ctx: the context of the call.
        formatter: collects the text, which Typer prints.
    """
    sections: dict[str, list[Row]] = {"Examples": list(FIRST_STEPS)}
    for name, command in COMMANDS.items():
        sections.setdefault(command.group, []).append((name, command.definition.summary))
    sections["Options"] = _options(group, ctx)
    more = ["`lime COMMAND --help` has the options and examples of a command.", _usage(group, ctx)]
    formatter.write(_render("Score every user against the whole catalogue, every night.", sections, more))


def _usage(command: Any, ctx: Any) -> str:
    return "Usage: " + " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])


def _options(command: Any, ctx: Any) -> list[Row]:
    records: Iterable[Row | None] = (each.get_help_record(ctx) for each in command.get_params(ctx))
    return [record for record in records if record]


def _render(summary: str, sections: dict[str, list[Row]], paragraphs: list[str]) -> str:
    """Return the text: the summary, the examples, the paragraphs, and the other sections."""
    console = open_console()
    with console.capture() as shown:
        console.print(Text(summary, style="bold"))
        for number, (title, rows) in enumerate(sections.items()):
            console.print()
            console.print(Text(title, style="bold"))
            table = Table.grid(padding=(0, 2))
            for left, right in rows:
                table.add_row("", Text(left, style="cyan", no_wrap=not number), right)
            console.print(table)
            for paragraph in paragraphs if number == 0 else ():
                console.print()
                console.print(paragraph)
    return "\n".join(line.rstrip() for line in shown.get().splitlines()) + "\n"
