"""Derive the state of a night: which lists are in force, which were taken back, which are disproved.

The state follows from the record of the night alone: the commits of `recommendations`, the oldest first, and
the runs that a full comparison has disproved. All jobs that publish, take back, pin or export a night use
this module. It needs no Spark. docs/operate.md, "Take a night back", has the table of transitions.

Three events make up a record:

- *publish*: a run's lists come into force.
- *take back*: the lists in force are marked as taken back, and those of another run come into force; without
  another run the night is withdrawn, and it has no lists.
- *put back*: the lists of a run that was taken back come into force again, which clears the run's mark. The
  run that was in force until then is not marked: the mistake was to take the other one back.

A rollback goes to the run that was in force most recently and is neither taken back nor disproved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from lime_model.errors import LimeError

NIGHT_BEFORE = "its readers find the night before it"
Action = Literal["publish", "take back", "put back"]


class NothingToRollBack(LimeError):
    """No lists are in force, or the lists to go back to do not exist or must not be served."""


class Commit(NamedTuple):
    """A commit that put lists of a night in force; without a `run_id` it withdrew the night."""

    version: int
    run_id: str | None
    action: Action | None = "publish"  # None: written by a version that did not record the action
    instead_of: str | None = None  # the run that was in force before the commit
    by: str | None = None  # the run that performed the rollback
    reason: str = ""


class Move(NamedTuple):
    """What a rollback does to a night."""

    action: Action
    target: Commit | None  # None: the night is withdrawn


class NightState(NamedTuple):
    """What the record of a night says."""

    night: str
    commits: tuple[Commit, ...]  # with their actions, the oldest first
    in_force: str | None  # None: the night was never published, or it is withdrawn
    taken_back: frozenset[str]
    disproved: frozenset[str]
    forgotten: frozenset[str]  # the runs that published it in commits that Delta's log no longer has

    @property
    def served(self) -> dict[str, Commit]:
        """The last commit that put each run in force, the most recent run first."""
        found: dict[str, Commit] = {}
        for commit in reversed(self.commits):
            if commit.run_id is not None:
                found.setdefault(commit.run_id, commit)
        return found

    @property
    def candidates(self) -> list[Commit]:
        """The commits whose lists a rollback may put in force, the best choice first."""
        unfit = self.taken_back | self.disproved | {self.in_force}
        return [commit for run_id, commit in self.served.items() if run_id not in unfit]

    @property
    def last_taken(self) -> Commit | None:
        """The last commit if it took a run back, else None."""
        last = self.commits[-1] if self.commits else None
        return last if last and last.action == "take back" else None


def parse_commit(version: int, text: str) -> tuple[str, Commit] | None:
    """Read the night and the commit from a commit's metadata; return None if they are not about a night."""
    try:
        tag: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(tag, dict) or "run_id" not in tag:
        return None
    run_id = tag["run_id"]
    if "instead_of" not in tag:
        return str(run_id).split(".")[0], Commit(version, run_id)
    back = Commit(version, run_id, tag.get("action"), tag["instead_of"], tag.get("by"), tag.get("reason", ""))
    return tag["night"], back


def derive_state(
    night: str, commits: Iterable[Commit], disproved: Iterable[str] = (), recorded: Iterable[str] = ()
) -> NightState:
    """Derive the state of a night from its commits.

    Args:
        night: the date of the night (YYYY-MM-DD).
        commits: the commits of this night, the oldest first.
        disproved: the disproved runs of any night.
        recorded: the runs of this night that published it according to their manifests, which are kept
            longer than Delta's log.
    """
    known: list[Commit] = []
    taken: set[str] = set()
    for found in commits:
        commit = found if found.action else found._replace(action=_infer_action(found, taken))
        if commit.action == "take back" and commit.instead_of is not None:
            taken.add(commit.instead_of)
        if commit.run_id is not None:
            taken.discard(commit.run_id)
        known.append(commit)
    served = {commit.run_id for commit in known}
    named = {*recorded, *(commit.instead_of for commit in known)}
    return NightState(
        night=night,
        commits=tuple(known),
        in_force=known[-1].run_id if known else None,
        taken_back=frozenset(taken),
        disproved=frozenset(disproved),
        forgotten=frozenset(run for run in named - served - taken if run is not None),
    )


def _infer_action(commit: Commit, taken: set[str]) -> Action:
    """Infer the action of a commit without one: only a run that was taken back can be put back."""
    return "put back" if commit.run_id in taken or commit.instead_of is None else "take back"


def choose_move(state: NightState, to: str | None = None, expected: str | None = None) -> Move:
    """Choose what a rollback does.

    Args:
        state: the state of the night.
        to: the run to put in force; by default the best candidate, or no run if there is none.
        expected: the run to take back. Without it, a second run is not taken back right after the first, so a
            command that is sent twice by mistake works only once.

    Raises:
        NothingToRollBack: the request is impossible, was already done, or would serve disproved lists.
    """
    night, now = state.night, state.in_force
    if expected is not None and expected != now:
        why = "was taken back already" if expected in state.taken_back else "is not in force"
        raise NothingToRollBack(f"night {night}: run {expected!r} {why}; {_situation(state)}")
    if to is not None:
        return _choose_named(state, to)
    if not state.commits and (lost := state.forgotten - state.disproved):
        raise NothingToRollBack(_not_in_log(night, sorted(lost)))
    if now is None:
        raise NothingToRollBack(f"night {night}: nothing to take back; {_situation(state)}")
    if state.last_taken and expected is None:
        raise NothingToRollBack(
            f"night {night}: run {state.last_taken.instead_of} was taken back already (its reason: "
            f"{state.last_taken.reason!r}) and no run was published since; {_situation(state)}. To take "
            f"back run {now} as well, add --from {now}, which {foretell(state)}"
        )
    if not state.candidates and (lost := state.forgotten - state.disproved):
        raise NothingToRollBack(_not_in_log(night, sorted(lost)))
    return Move("take back", state.candidates[0] if state.candidates else None)


def _choose_named(state: NightState, to: str) -> Move:
    """Choose the move that puts the run `to` in force."""
    night, now = state.night, state.in_force
    if to == now:
        raise NothingToRollBack(f"night {night}: the lists of run {to!r} are in force already")
    if to in state.disproved and to in {*state.served, *state.forgotten, *state.taken_back}:
        raise NothingToRollBack(
            f"night {night}: a full comparison (jobs/verify_night.py --full) has disproved the lists of run "
            f"{to!r}, or lists that they were built on; {_situation(state)}"
        )
    if to not in state.served and to in state.forgotten | state.taken_back:
        raise NothingToRollBack(_not_in_log(night, [to]))
    if to not in state.served:
        others = sorted(set(state.served) - {now} - state.disproved)
        raise NothingToRollBack(f"night {night}: {to!r} never published it; others that did: {others}")
    undo = now is None or to in state.taken_back
    return Move("put back" if undo else "take back", state.served[to])


def foretell(state: NightState) -> str:
    """Describe what taking back the run in force will do, as the end of a sentence."""
    if state.candidates:
        return f"puts the lists of run {state.candidates[0].run_id} in force"
    if lost := sorted(state.forgotten - state.disproved):
        return f"is refused, as Delta's log does not reach back to run {', '.join(lost)}"
    return f"withdraws the night, as {_no_other(state)}; {NIGHT_BEFORE}"


def describe_remedy(state: NightState) -> str:
    """Describe in one sentence what to do about wrong lists in force."""
    lost = state.forgotten - state.disproved
    if state.in_force is None or (lost and not state.candidates):
        return (
            "Delta's log of recommendations does not reach back to what could be put in its place: score the "
            "night with night.reuse: false under a new --run-key and publish that"
        )
    command = f"lime rollback --ds {state.night} --from {state.in_force} --reason …"
    return f"Take run {state.in_force} back with {command}, which {foretell(state)}"


def describe_result(before: NightState, move: Move) -> str:
    """Describe a finished move in one sentence."""
    old, new = f"run {before.in_force} was taken back", "the night is withdrawn"
    if move.target is None:
        return f"night {before.night}: {old} and {new}, as {_no_other(before)}; {NIGHT_BEFORE}"
    new = f"the lists of run {move.target.run_id} are in force"
    return f"night {before.night}: " + (f"{old}, and {new}" if move.action == "take back" else new)


def _no_other(state: NightState) -> str:
    """Describe why no other run can be served."""
    others = set(state.served) | state.taken_back | state.forgotten
    false = sorted((others & state.disproved) - {state.in_force})
    taken = sorted((others & state.taken_back) - {state.in_force} - state.disproved)
    whys = []
    if false:
        whys.append(f"disproved by a full comparison ({', '.join(false)})")
    if taken:
        whys.append(f"taken back ({', '.join(taken)})")
    return f"all other runs were {' or '.join(whys)}" if whys else "no other run published it"


def _situation(state: NightState) -> str:
    """Describe which run is in force and which could be, for the message of a refusal."""
    held = f"run {state.in_force} is in force" if state.in_force else "no lists are published"
    others = sorted(set(state.served) - {state.in_force} - state.disproved)
    choice = (
        f"--to RUN_ID puts one of these in force: {', '.join(others)}" if others else "no other run is left"
    )
    return f"{held} and nothing was changed; {choice}"


def _not_in_log(night: str, runs: list[str]) -> str:
    return (
        f"night {night}: {runs} published it before, and Delta's log of recommendations does not "
        "reach back to them; nothing was changed. Publish the night again under a new --run-key"
    )
