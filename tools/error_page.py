"""Write the page about errors: their classes, what each of them says, and the rules for those of Spark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import cast

from error_reference import Errors, Sentence, find_errors, read_constant

from pipelines.errors.stack_traces import TABLE
from pipelines.udfs import store_errors

INTRODUCTION = """# Every error

`make docs` writes this page from the code. A job that fails ends with a line that starts with `error: `;
look for its words here. `…` marks a value of the moment, such as a night, a path or a number.
[operate.md](operate.md#how-a-job-ends) says what the exit codes mean. Airflow tries a task again where a
table says so; any other error ends the task at once, as only a person can remove its cause.
"""
SAID = """## What they say

A sentence ends with its remedy; where it has none, correct the value that it names.
"""
SPARK = """## What Spark, Delta, Hadoop and the storages report

Rules explain these errors, and the first rule that fits applies. A sentence is what happened, then the
cause in the words of Spark or the storage, then the remedy. An error that fits no rule ends with exit
code {bug} and asks for a report.
"""
STORE = """## What a Redis or Valkey store reports

The sentences begin with `the store at URL: `. The export repeats them as an `ExportFailed`,
`ExportDelayed` or `ExportFault`, and adds what is served meanwhile.
"""


class _Ends:
    """What the errors of a remedy do: their exit code, and whether Airflow tries the task again."""

    def __init__(self, root: Path) -> None:
        self.codes = cast(dict[str, int], read_constant(root / "jobs" / "endings.py", "EXIT_CODES"))
        self.final = cast(tuple[int, ...], read_constant(root / "dags" / "exit_codes.py", "FOR_A_PERSON"))

    def cells(self, remedy: str) -> list[str]:
        """Return the cells of a table."""
        code = self.codes[remedy]
        return [str(code), "ends" if code in self.final else "tries again"]


def write_page(root: Path) -> str:
    """Return the text of the page about the errors of a checkout."""
    errors, ends = find_errors(root), _Ends(root)
    parts = [INTRODUCTION, _write_kinds(errors, ends), SAID]
    for room, sentences in groupby(errors.sentences, key=lambda sentence: sentence.room):
        parts.append(f"### `{room}/`\n\n" + _write_sentences(sentences, errors, ends))
    parts += [SPARK.format(bug=ends.codes["bug"]), _write_rules(ends), STORE, _write_answers(ends)]
    return "\n".join(parts)


def _write_kinds(errors: Errors, ends: _Ends) -> str:
    kinds = sorted(errors.kinds.values(), key=lambda kind: (kind.module.name, kind.name))
    rows = []
    for kind in kinds:
        if not kind.about:
            raise SystemExit(f"error: {kind.module.name}.{kind.name} has no docstring; say what it means")
        place = f"`{kind.module.name}`"
        rows.append([f"`{kind.name}`", _cell(kind.about), *ends.cells(errors.remedies[kind.name]), place])
    return _table(["error", "means", "exit code", "Airflow", "defined in"], rows)


def _write_sentences(sentences: Iterable[Sentence], errors: Errors, ends: _Ends) -> str:
    rows = [
        [_cell(said.text), f"`{said.kind}`", *ends.cells(errors.remedies[said.kind]), _link(said.path)]
        for said in sentences
    ]
    return _table(
        ["sentence", "error", "exit code", "Airflow", "said in"], list(dict.fromkeys(map(tuple, rows)))
    )


def _write_rules(ends: _Ends) -> str:
    rows = [
        [
            _cell(rule.what.replace("{host}", "…")),
            _cell(rule.remedy),
            f"`{rule.error.__name__}`",
            *ends.cells(rule.error.remedy),
        ]
        for rule in TABLE
    ]
    return _table(["what happened", "remedy", "error", "exit code", "Airflow"], rows)


def _write_answers(ends: _Ends) -> str:
    """Write the table of the server's answers, then that of all other causes that have a sentence."""
    answers = [
        (f"`{code}`", sentence, code in store_errors.AWAY) for code, sentence in store_errors.ANSWERS.items()
    ]
    causes = [
        ("", value, value in store_errors.AWAY_CAUSES)
        for name, value in vars(store_errors).items()
        if name.isupper() and isinstance(value, tuple) and [type(each) for each in value] == [str, str]
    ]
    rows = []
    for code, (what, remedy), away in [*answers, *causes]:
        kind = store_errors.StoreAway if away else store_errors.StoreProblem
        rows.append([code, _cell(what), _cell(remedy), *ends.cells(kind.remedy)])
    return _table(["answer", "what happened", "remedy", "exit code", "Airflow"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _link(path: str) -> str:
    return f"[{Path(path).name}](../{path})"


def _cell(text: str) -> str:
    """Write text so that a table of Markdown shows it as it is."""
    for letter, shown in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*")):
        text = text.replace(letter, shown)
    return text
