"""The command `lime` has the options of the jobs, and its help begins with examples."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from jobs import command, definitions
from jobs.arguments import parser
from jobs.lime.app import app
from jobs.lime.commands import COMMANDS
from jobs.lime.face import options_of
from jobs.options import Definition
from tests.conftest import ROOT
from tests.jobs.running_lime import ESCAPE, lime, start

SCRIPTS = [value for value in vars(definitions).values() if isinstance(value, Definition)]
FACES = {name: each for name, each in COMMANDS.items() if each.module == f"jobs.{each.definition.name}"}


def parse(definition: Definition, example: str) -> argparse.Namespace:
    """Parse a command line as the script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [definition.name, "--config", "c.yaml", *shlex.split(example)])
        return command.parse(definition)


def call(monkeypatch: pytest.MonkeyPatch, name: str, options: list[str]) -> argparse.Namespace:
    """Parse a command line as `lime` does."""
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr("jobs.lime.face.run", lambda name, command, args: seen.append(args) or 0)
    assert lime(name, "--config", "c.yaml", *options) == 0
    return seen[0]


@pytest.mark.parametrize("name", FACES)
def test_both_faces_of_a_command_have_the_same_options(name: str) -> None:
    definition = FACES[name].definition
    script = parser(definition.name, "")
    for option in definition.options:
        command.add_option(script, option)
    theirs = {flag for action in script._actions for flag in action.option_strings} - {"-h", "--help"}
    group = typer.main.get_command(app)
    shown = group.commands[name].params  # type: ignore[attr-defined]
    ours = {flag for each in shown for flag in each.opts}
    assert ours - theirs == {"--json", "-v"}
    assert theirs - {"--result"} <= ours
    required = {action.dest for action in script._actions if action.required} - {"config"}
    assert required == {each.name for each in shown if each.required}
    assert {each.name for each in shown} == {option.dest for option in options_of(definition)}


@pytest.mark.parametrize("name", FACES)
def test_both_faces_read_the_examples_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = FACES[name].definition
    for example in definition.examples:
        theirs = vars(parse(definition, example))
        ours = vars(call(monkeypatch, name, shlex.split(example)))
        del theirs["output"], ours["json"]
        assert ours == theirs
    assert call(monkeypatch, name, ["-v", *shlex.split(definition.examples[0])]).verbose


def test_every_definition_is_of_a_job_and_its_examples_parse() -> None:
    jobs = {path.stem for path in (ROOT / "jobs").glob("*.py") if "__main__" in path.read_text()}
    assert {definition.name for definition in SCRIPTS} == jobs
    for definition in SCRIPTS:
        assert definition.examples
        for example in definition.examples:
            assert parse(definition, example).config == "c.yaml"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_examples_before_the_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lime(name, "--help") == 0
    said = capsys.readouterr().out
    place = [said.index(f"lime {name} {example}".strip()) for example in COMMANDS[name].definition.examples]
    assert place == sorted(place)
    assert place[-1] < said.index("\nOptions")
    for option in options_of(COMMANDS[name].definition):
        assert f"{option.flag} " in said[said.index("\nOptions") :]
    assert ESCAPE not in said


def test_the_help_of_lime_lists_all_commands_and_imports_nothing_slow() -> None:
    code = (
        "import sys\n"
        "from jobs.lime.app import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "assert not {'torch', 'pyspark', 'pandas', 'pydantic'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.index("Examples") < min(done.stdout.index(f"\n  {name} ") for name in COMMANDS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["night", "--nights", "3"], "No such option: --nights"),
        (["nihgt"], "Did you mean 'night'"),
        (["night"], "Missing option '--ds'"),
        (["night", "--ds", "yesterday"], "'yesterday' is not a date like 2017-12-04"),
        (
            ["evaluate", "--ds", "2017-12-04", "--min-events", "0"],
            "is not a whole number from 1 to",
        ),
        (["ingest", "--from", "2017-12-04"], "give either --ds NIGHT or both --from DAY and --to DAY"),
        (["pin", "--ds", "2017-12-04", "--reason", " "], "it is empty; say why"),
    ],
)
def test_mistakes_on_the_command_line_exit_with_2(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lime(*options) == 2
    out, error = capsys.readouterr()
    assert said in error
    assert out == ""


def test_the_settings_file_comes_from_the_option_the_environment_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("jobs.lime.face.run", lambda name, command, args: seen.append(args.config) or 0)
    monkeypatch.chdir(tmp_path)
    assert lime("check") == 2
    assert (
        f"LIME_CONFIG is not set, and {tmp_path} has neither lime-data/lime.yaml nor"
        in capsys.readouterr().err
    )
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "local.yaml").touch()
    assert lime("check") == 0
    (tmp_path / "lime-data").mkdir()
    (tmp_path / "lime-data" / "lime.yaml").touch()
    assert lime("check") == 0
    monkeypatch.setenv("LIME_CONFIG", "mine.yaml")
    assert lime("check") == 0
    assert lime("check", "--config", "given.yaml") == 0
    assert seen == ["conf/local.yaml", "lime-data/lime.yaml", "mine.yaml", "given.yaml"]


def test_the_shell_completes_commands_and_options() -> None:
    for words, found in (("lime ni", "night\n"), ("lime night --r", "--run-key\n")):
        place = str(len(words.split()) - 1)
        assert start(_LIME_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place).stdout == found
