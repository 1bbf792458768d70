"""Make a Typer command from a definition: its signature, its help with the examples first, and its call."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobs.lime.commands import BEGUN, COMMANDS, Command
from jobs.options import CONFIG, VERBOSE, Definition, Option

LOCAL = Path("conf/local.yaml")
JSON = Option("--json", "print one JSON object on stdout instead of tables", kind="switch", default=False)
SHORT = {VERBOSE.flag: "-v"}
TYPES = {"switch": bool, "repeated": list[str]}


def options_of(definition: Definition) -> tuple[Option, ...]:
    """Return all options of a command of `lime`, those of its definition first."""
    named = {option.dest for option in definition.options}
    return (*definition.options, *([] if CONFIG.dest in named else [CONFIG]), JSON, VERBOSE)


def make_callback(name: str, command: Command) -> Callable[..., None]:
    """Return the function that Typer calls; its signature says which options the command has."""

    def callback(**values: Any) -> None:
        context = values.pop("ctx")
        args = argparse.Namespace(**{key: None if value == [] else value for key, value in values.items()})
        if problem := command.definition.problem(args):
            context.fail(problem)
        args.config = args.config or find_config()
        if not args.config:
            context.fail(
                f"there are no settings: LIME_CONFIG is not set, and {Path.cwd()} has neither {BEGUN} nor "
                f"{LOCAL}; give --config FILE, or let lime init write them"
            )
        raise typer.Exit(run(name, command, args))

    shown = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    shown += map(_parameter, options_of(command.definition))
    callback.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return callback


def run(name: str, command: Command, args: argparse.Namespace) -> int:
    """Run a command after its command line was parsed; return the exit code.

    Args:
        name: the name of the command.
        command: its definition and its module.
        args: the parsed options; `output` is added to them.
    """
    from jobs.endings import Ending
    from jobs.lime.output import JsonOutput, PeopleOutput

    args.output = (JsonOutput if args.json else PeopleOutput)(name, scores=command.definition.scores)
    with Ending(verbose=args.verbose) as ending:
        return int(importlib.import_module(command.module).run(args))
    # The job itself ends with a code; this is an error before it or after it.
    args.output.fail(ending.code, ending.lines)
    return ending.code


def find_config() -> str | None:
    """Return the settings file if `--config` is not given; None if there is none."""
    here = (str(path) for path in (BEGUN, LOCAL) if path.is_file())
    return os.environ.get("LIME_CONFIG") or next(here, None)


def _parameter(option: Option) -> inspect.Parameter:
    """Return the parameter of a function for which Typer makes this option."""
    required = option.required and option is not CONFIG
    if option.kind == "argument":
        shown = typer.Argument(help=option.help, metavar=option.flag, show_default=False)
        return inspect.Parameter(
            option.dest, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[str, shown]
        )
    flags = [option.flag, *filter(None, [SHORT.get(option.flag)])]
    default = f"settings file (default: $LIME_CONFIG, {BEGUN} or {LOCAL})"
    about = default if option is CONFIG else option.help
    more: dict[str, Any] = {}
    if option.kind != "switch":
        more = {"parser": _reader(option), "metavar": option.metavar or option.dest.upper()}
    kind = TYPES.get(option.kind, str if required else str | None)
    return inspect.Parameter(
        option.dest,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, typer.Option(*flags, help=about, **more)],
        default=inspect.Parameter.empty if required else option.default,
    )


def _reader(option: Option) -> Callable[[Any], Any]:
    """Return a function that reads a value of an option, and raises Typer's error instead of argparse's."""

    def read(text: Any) -> Any:
        try:
            return option.check(text) if isinstance(text, str) else text
        except argparse.ArgumentTypeError as error:
            raise typer.BadParameter(str(error)) from None

    return read


class LimeCommand(TyperCommand):
    """A command whose help begins with what it does and with examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from jobs.lime.help import write_command_help

        write_command_help(self, COMMANDS[str(self.name)].definition, ctx, formatter)


class LimeGroup(TyperGroup):
    """The group of all commands, whose help begins with examples and lists the commands by what they do."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from jobs.lime.help import write_group_help

        write_group_help(self, ctx, formatter)
