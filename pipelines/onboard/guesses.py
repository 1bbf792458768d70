"""What is guessed about a source: each guess has its evidence and whether it is sure.

What is not sure is asked for. Without a person to ask, a guess is taken as it is; what has no guess is an
error that names the option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from pipelines.onboard.dialect import DataError

NONE: Final = "none"  # the answer that there is no such thing
Ask = Callable[["Guess"], str]


@dataclass(frozen=True)
class Guess:
    """A guess about the data, and the option that answers it."""

    option: str  # such as `user`
    question: str
    value: str | None  # None: it can't be guessed
    why: str  # the evidence
    sure: bool = True
    choices: tuple[str, ...] = ()  # the answers that are possible, if they are known
    optional: bool = True  # whether there may be none
    example: str = ""  # an answer, where it can't be guessed


@dataclass
class Guesses:
    """All guesses of a run, in the order in which they were made."""

    given: Mapping[str, str]  # what options answered
    ask: Ask | None = None  # asks a person; None: guesses are taken
    made: list[Guess] = field(default_factory=list)
    asked: int = 0

    def settle(self, guess: Guess) -> str | None:
        """Return the answer to a guess: the option's, the guess itself if it is sure, or a person's.

        Raises:
            DataError: there is no guess and nobody to ask, or the answer is not possible.
        """
        value, why = guess.value, guess.why
        if guess.option in self.given:
            value, why = self.given[guess.option], f"--{guess.option.replace('_', '-')} says so"
        elif not guess.sure and self.ask is not None:
            value, why = self.ask(guess), "you said so"
            self.asked += 1
        elif value is None and not guess.optional:
            raise DataError(f"{guess.question} {guess.why}; say it with {show_option(guess)}")
        if value == NONE and guess.optional:
            value = None
        if value is not None and guess.choices and value not in guess.choices:
            raise DataError(
                f"{value!r} can't be the answer to: {guess.question}; use one of {', '.join(guess.choices)}"
            )
        self.made.append(replace(guess, value=value, why=why))
        return value


def show_option(guess: Guess) -> str:
    """Return the option that answers a guess, with an example of its value."""
    flag = f"--{guess.option.replace('_', '-')}"
    if guess.value is not None:
        return f"{flag} {guess.value}"
    if guess.choices:
        return f"{flag} and one of {some(guess.choices)}"
    return f"{flag} {guess.example or 'VALUE'}"


def some(names: Sequence[str]) -> str:
    """List names in a message, a few of them if there are many."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
