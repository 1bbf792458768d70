"""The application of Typer behind `lime`, which starts quickly: a command imports Spark when it runs."""

from __future__ import annotations

import typer

from jobs.lime.commands import COMMANDS
from jobs.lime.face import LimeCommand, LimeGroup, make_callback

app = typer.Typer(
    name="lime", cls=LimeGroup, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Score every user against the whole catalogue, every night.",
)  # fmt: skip
for _name, _command in COMMANDS.items():
    app.command(_name, cls=LimeCommand, help=_command.definition.summary)(make_callback(_name, _command))


def main() -> None:
    """Run the command that the command line names."""
    app(prog_name="lime")
