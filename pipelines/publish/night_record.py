"""Read the record of nights from the warehouse, and the state of a night that follows from it.

The metadata of the commits of `recommendations` record what happened to the lists of a night. The table
`runs` records which runs a full comparison has disproved. `night_state.py` derives the state from both.
"""

from __future__ import annotations

from lime_model.errors import LimeError
from pipelines.publish.night_state import Commit, NightState, derive_state, describe_remedy, parse_commit
from pipelines.score.base_night import find_disproved
from pipelines.store.manifests import PublishManifest
from pipelines.store.runs import find_manifests
from pipelines.store.tables import Warehouse


class ListsDisproved(LimeError):
    """A full comparison has disproved the lists in force, so they must not reach a reader."""


def find_commits(warehouse: Warehouse, night: str) -> list[Commit]:
    """Find the commits of a night's lists that are still in Delta's log, the oldest first."""
    return _read_commits(warehouse).get(night, [])


def read_disproved(warehouse: Warehouse) -> frozenset[str]:
    """Find the runs whose lists a full comparison has disproved, and the runs that were built on them."""
    return find_disproved(warehouse)


def read_states(warehouse: Warehouse) -> dict[str, NightState]:
    """Read the state of every night that was ever published, the oldest night first."""
    false, commits = read_disproved(warehouse), _read_commits(warehouse)
    recorded: dict[str, set[str]] = {}
    for done in find_manifests(warehouse, PublishManifest):
        recorded.setdefault(done.ds, set()).add(done.run_id)
    nights = sorted({*commits, *recorded})
    return {
        night: derive_state(night, commits.get(night, ()), false, recorded.get(night, ())) for night in nights
    }


def read_state(warehouse: Warehouse, night: str) -> NightState:
    """Read which lists are in force on a night, and which others could be."""
    return read_states(warehouse).get(night) or derive_state(night, ())


def find_disproved_in_force(warehouse: Warehouse) -> list[NightState]:
    """Find the nights whose readers are served disproved lists, the oldest night first."""
    return [state for state in read_states(warehouse).values() if state.in_force in state.disproved]


def refuse_disproved(warehouse: Warehouse, night: str, run_id: str) -> None:
    """Refuse to give lists in force to readers if a full comparison has disproved them.

    Args:
        warehouse: holds the record of the night.
        night: the date of the night (YYYY-MM-DD).
        run_id: the run whose lists are in force.

    Raises:
        ListsDisproved: they are disproved; the message names the command that takes them back.
    """
    if run_id in read_disproved(warehouse):
        raise ListsDisproved(
            f"night {night}: the lists of run {run_id} are in force, and a full comparison "
            "(jobs/verify_night.py --full) has disproved them or lists that they were built on; nothing was "
            "exported, and what was exported before is still served. "
            f"{describe_remedy(read_state(warehouse, night))}. Then export the night again"
        )


def _read_commits(warehouse: Warehouse) -> dict[str, list[Commit]]:
    """Read the commits of each night, the oldest first, by the date of the night."""
    nights: dict[str, list[Commit]] = {}
    for version, text in warehouse.commit_tags("recommendations"):
        if found := parse_commit(version, text):
            nights.setdefault(found[0], []).append(found[1])
    return nights
