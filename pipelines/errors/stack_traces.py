"""Explain a Java stack trace in one sentence, by the rules of `TABLE`.

The sentence holds the cause that Spark hides below its stack trace (file, path, host or value) and the
remedy. An error that matches no rule counts as a bug until a rule is added: `UnknownFault` names its class
and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from lime_model.errors import LimeError
from pipelines.errors.environment_rules import ENVIRONMENT
from pipelines.errors.rules import Rule
from pipelines.errors.runtime_rules import RUNTIME
from pipelines.errors.worker_errors import find_error

# The first rule that matches any exception of a chain applies, so precise rules come first.
TABLE: Final = (*ENVIRONMENT, *RUNTIME)
LONGEST = 300  # characters of a cause in a sentence
HOST = re.compile(r"Lost task \S+ in stage \S+ \(TID \d+\) \(([^)]*)\)")  # "10.0.0.7 executor 3"
HEAD = re.compile(r"(?:Caused by: |: )?((?:[a-z_][\w$]*\.)+[A-Z][\w$]*)(?:: ?(.*))?")
CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)*)\]\s*")
PLACE = re.compile(r'File "([^"]+)", line (\d+)')


class UnknownFault(LimeError):
    """The reported error matches no rule."""

    remedy = "bug"


class Cause(NamedTuple):
    """One exception of a chain of causes."""

    kind: str  # the Java class
    text: str  # the complete message

    @property
    def line(self) -> str:
        """The message in one line."""
        return one_line(self.text)


def one_line(text: str) -> str:
    """Shorten a message of Spark: drop the name of its condition, the SQL state, the plan and the query."""
    text = CONDITION.sub("", text.strip(), count=1).partition("\n== SQL")[0]
    text = re.sub(r"\s*SQLSTATE: \w+.*", "", text, flags=re.DOTALL)
    text = " ".join(text.split()).rstrip(" .;:")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def explain_text(text: str) -> LimeError:
    """Explain a Java stack trace by this project's error that a worker raised, or by a rule of `TABLE`."""
    if ours := find_error(text):
        return ours
    causes = list(find_causes(text)) or [Cause("Spark", text)]
    if found := _match(causes):
        return found
    if "Traceback (most recent call last):" in text:
        return _unknown_python(text)
    named = next((cause for cause in causes if CONDITION.match(cause.text)), causes[0])
    condition = CONDITION.match(named.text)
    name = f"{named.kind} {condition[1]}" if condition else named.kind
    return UnknownFault(f"{name}: {named.line}{_root(causes, named)}")


def find_causes(text: str) -> Iterator[Cause]:
    """Yield the exceptions of a Java stack trace, the outermost first."""
    kind, lines = "", list[str]()
    for line in text.splitlines():
        frame = line.startswith(("\tat ", "\t... ", "Driver stacktrace:"))
        head = None if frame or line.startswith(" ") else HEAD.fullmatch(line)
        if (frame or head) and kind:
            yield Cause(kind, "\n".join(lines).strip())
            kind = ""
        if head:
            kind, lines = head[1], [head[2] or ""]
        elif kind:
            lines.append(line)
    if kind:
        yield Cause(kind, "\n".join(lines).strip())


def _match(causes: list[Cause]) -> LimeError | None:
    for rule in TABLE:
        for cause in causes:
            if rule.pattern.search(f"{cause.kind}: {cause.text}"):
                return rule.error(_say(rule, cause, causes))
    return None


def _say(rule: Rule, cause: Cause, causes: list[Cause]) -> str:
    found = [at[1] for each in causes if (at := HOST.search(each.text))]
    what = rule.what.format(host=found[0] if found else "a host")
    said = f"{cause.kind.rsplit('.', 1)[-1]}: {cause.line}" if cause.line else cause.kind
    return f"{what}: {said}{_root(causes, cause)}; {rule.remedy}"


def _root(causes: list[Cause], said: Cause) -> str:
    """Return the innermost cause in brackets, or no text if the sentence says it already."""
    last = causes[-1]
    return f" ({last.line})" if last.line and last.line not in said.text.replace("\n", " ") else ""


def _unknown_python(text: str) -> UnknownFault:
    """Report an unknown error of a Python worker: its last line, and where it was raised."""
    _, _, last = text.rpartition("Traceback (most recent call last):")
    ends = [line for line in last.splitlines() if line and not line[0].isspace()]
    places = PLACE.findall(last.partition(ends[0])[0] if ends else last)
    where = f" at {places[-1][0]}:{places[-1][1]}" if places else ""
    return UnknownFault(f"{ends[0] if ends else 'an unknown error'} (in a Python worker{where})")
