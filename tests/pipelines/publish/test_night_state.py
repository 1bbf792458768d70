"""The state of a night is compared with a model that replays a plain list of what happened."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipelines.publish.night_state import (
    Commit,
    NightState,
    NothingToRollBack,
    choose_move,
    derive_state,
    describe_remedy,
    foretell,
    parse_commit,
)

NIGHT = "2024-05-09"
A, B, C = (f"{NIGHT}.{number}" for number in (1, 2, 3))
# The place of a run among those that published; a larger number means an unknown run.
PLACES = st.integers(0, 7)


class Night(RuleBasedStateMachine):
    """A night and its model `happened`, which lists in order the runs that were served or taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.disproved: set[str] = set()
        self.happened: list[tuple[str, str]] = []
        self.runs: list[str] = []
        self.just_taken = False

    # These methods read the model.

    def served(self) -> str | None:
        """Return the run whose lists readers find."""
        for what, run in reversed(self.happened):
            return run if what == "served" else None
        return None

    def good(self) -> list[str]:
        """Return the runs that may be served, the one that was served last first."""
        last: dict[str, tuple[int, str]] = {}
        for place, (what, run) in enumerate(self.happened):
            last[run] = (place, what)
        fit = [(place, run) for run, (place, what) in last.items() if what == "served"]
        return [run for _, run in sorted(fit, reverse=True) if run not in self.disproved]

    def was_taken_back(self, run: str) -> bool:
        return [what for what, other in self.happened if other == run][-1:] == ["taken"]

    # These methods call the tested functions.

    def state(self, first: int = 0, old: bool = False) -> NightState:
        """Derive the state from the commits since `first`; `old` removes the actions, as old versions did."""
        commits = []
        for version, text in list(enumerate(self.tags))[first:]:
            tag = json.loads(text)
            if old:
                tag.pop("action", None)
            found = parse_commit(version, json.dumps(tag))
            assert found is not None
            assert found[0] == NIGHT
            commits.append(found[1])
        return derive_state(NIGHT, commits, self.disproved, self.runs)

    def go(self, to: str | None = None, expected: str | None = None) -> None:
        """Commit what a rollback does, and add it to the model."""
        now, marked = self.served(), to is not None and self.was_taken_back(to)
        move = choose_move(self.state(), to, expected)
        wanted = to or next((run for run in self.good() if run != now), None)
        target = move.target.run_id if move.target else None
        assert target == wanted
        tag = {"night": NIGHT, "run_id": target, "action": move.action, "instead_of": now, "by": "x"}
        self.tags.append(json.dumps({**tag, "reason": "r"}))
        self.just_taken = now is not None and not marked
        if now is not None and self.just_taken:
            self.happened.append(("taken", now))
        if target is not None:
            self.happened.append(("served", target))
            assert target not in self.disproved

    def refused(
        self, to: str | None = None, expected: str | None = None, state: NightState | None = None
    ) -> str:
        with pytest.raises(NothingToRollBack) as found:
            choose_move(state or self.state(), to, expected)
        said = str(found.value)
        assert said.startswith(f"night {NIGHT}: ")
        assert "\n" not in said
        assert "None" not in said
        return said

    # These rules are what may happen to a night.

    @precondition(lambda self: len(self.runs) < 7)
    @rule()
    def publish(self) -> None:
        run = f"{NIGHT}.{len(self.tags) + 1}"
        self.tags.append(json.dumps({"run_id": run, "policy": "all"}))
        self.runs.append(run)
        self.happened.append(("served", run))
        self.just_taken = False

    @rule(place=PLACES)
    def disprove(self, place: int) -> None:
        self.disproved.update(self.runs[place : place + 1])

    @rule()
    def roll_back(self) -> None:
        if self.served() is None:
            assert "no lists are published" in self.refused()
        elif self.just_taken:
            said = self.refused()
            assert "was taken back already" in said
            assert f"run {self.served()} is in force" in said
            assert f"--from {self.served()}" in said
        else:
            self.go()

    @precondition(lambda self: self.served() is not None)
    @rule()
    def roll_back_what_is_in_force(self) -> None:
        self.go(expected=self.served())

    @rule(place=PLACES)
    def roll_back_what_is_not_in_force(self, place: int) -> None:
        run = ([*self.runs, "nobody"])[min(place, len(self.runs))]
        if run != self.served():
            said = self.refused(expected=run)
            assert ("was taken back already" in said) == self.was_taken_back(run)

    @rule(place=PLACES)
    def go_to(self, place: int) -> None:
        to = ([*self.runs, "nobody"])[min(place, len(self.runs))]
        if to == self.served():
            assert "in force already" in self.refused(to)
        elif to == "nobody":
            assert "never published it" in self.refused(to)
        elif to in self.disproved:
            assert "has disproved the lists of run" in self.refused(to)
        else:
            self.go(to)

    # These invariants hold after every rule.

    @invariant()
    def the_state_names_the_run_that_readers_find(self) -> None:
        state = self.state()
        assert state.in_force == self.served()
        assert [each.run_id for each in state.candidates] == [
            run for run in self.good() if run != self.served()
        ]

    @invariant()
    def readers_find_lists_while_good_ones_exist(self) -> None:
        assert self.served() is not None or not self.good()

    @invariant()
    def a_second_command_by_mistake_withdraws_nothing(self) -> None:
        if self.just_taken:
            self.refused()

    @invariant()
    def commits_of_older_versions_give_the_same_state(self) -> None:
        assert self.state(old=True) == self.state()

    @invariant()
    def a_shorter_log_withdraws_no_lists_that_the_complete_log_would_serve(self) -> None:
        whole = self.state()
        for first in range(1, len(self.tags) + 1):
            state = self.state(first)
            assert first == len(self.tags) or state.in_force == whole.in_force
            if state.in_force and whole.candidates and not state.candidates:
                assert "log of recommendations does not reach back" in self.refused(
                    expected=state.in_force, state=state
                )

    @invariant()
    def what_a_rollback_would_do_is_foretold(self) -> None:
        state = self.state()
        if state.in_force:
            said = describe_remedy(state)
            assert f"--from {state.in_force}" in said
            best = state.candidates[0].run_id if state.candidates else None
            assert said.endswith(foretell(state))
            assert (f"puts the lists of run {best} in force" if best else "withdraws the night") in said
            assert "None" not in said


Night.TestCase.settings = settings(max_examples=150, stateful_step_count=30, derandomize=True, deadline=None)
TestNight = Night.TestCase


def commits(*tags: dict[str, Any]) -> list[Commit]:
    found = [parse_commit(version, json.dumps(tag)) for version, tag in enumerate(tags)]
    return [each[1] for each in found if each]


def old(run_id: str | None, instead_of: str | None) -> dict[str, Any]:
    """Return the metadata of a rollback by a version that did not record the action."""
    return {"night": NIGHT, "run_id": run_id, "instead_of": instead_of, "reason": "r", "by": f"{NIGHT}.9"}


def test_after_an_older_version_withdrew_a_night_the_error_names_what_can_be_put_back() -> None:
    """The older version counted every replaced run as taken back, so it withdrew the night."""
    state = derive_state(
        NIGHT, commits({"run_id": A}, {"run_id": B}, old(A, B), old(B, A), {"run_id": C}, old(None, C))
    )
    assert (state.in_force, state.taken_back) == (None, {C})
    assert [each.run_id for each in state.candidates] == [B, A]
    with pytest.raises(NothingToRollBack, match=rf"no lists are published .*in force: {A}, {B}, {C}$"):
        choose_move(state)
    assert choose_move(state, B).target == state.served[B]


def test_the_sentence_says_when_all_other_runs_are_disproved() -> None:
    state = derive_state(NIGHT, commits({"run_id": A}, {"run_id": B}), disproved=[A])
    assert foretell(state) == (
        f"withdraws the night, as all other runs were disproved by a full comparison ({A}); "
        "its readers find the night before it"
    )
    assert choose_move(state).target is None


@pytest.mark.parametrize("text", ["", "by hand", "3", "[1]", '{"reason": "none of ours"}', "0" * 32])
def test_metadata_of_other_commits_are_ignored(text: str) -> None:
    assert parse_commit(0, text) is None
