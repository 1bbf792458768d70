"""What a job tells Airflow: it writes lines of JSON into the file that its option `--result` names.

The output of spark-submit mixes the lines of several processes, so it is not searched for results.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


@dataclass
class Results:
    """The results of one job: its steps with their figures, and where more can be seen."""

    pages: str | None = None  # the folder of the nights' pages, if it is a local one
    application: str | None = None  # the id of the Spark application
    ui: str | None = None  # the address of the application's own pages while it runs
    night: str | None = None
    run_id: str | None = None
    model_version: str | None = None
    steps: dict[str, Any] = field(default_factory=dict)

    def event(self) -> dict[str, Any]:
        """Return the extra of an asset's event."""
        return {"night": self.night, "run_id": self.run_id, "model_version": self.model_version}

    def to_xcom(self) -> dict[str, Any]:
        """Return the figures of the job as a value for XCom."""
        return {**self.event(), "application": self.application, "steps": self.steps}


@contextmanager
def result_file(folder: str) -> Iterator[Path]:
    """Yield the path of a result file that does not exist yet; it is removed in the end.

    Args:
        folder: a folder that exists on the machine of the driver too; if empty, one of this machine is used.
    """
    with TemporaryDirectory(prefix="lime-result-", dir=folder or None) as place:
        yield Path(place) / "results.jsonl"


def read_results(file: Path) -> Results:
    """Read the file of a job, which may still run, or have failed before it wrote all lines, or any."""
    found = Results()
    text = file.read_text("utf-8") if file.exists() else ""
    whole = text.splitlines()[: text.count("\n")]  # a line without an end is still being written
    for record in map(json.loads, whole):
        if "job" not in record:
            for key, value in record.items():
                setattr(found, key, value)
            continue
        result = record["result"]
        found.steps[record["job"]] = figures(result)
        found.night = record["night"]
        # A rollback names the run whose lists are in force afterwards, or none if the night is withdrawn.
        found.run_id = result.get("run_id", None if record["job"] == "roll_back" else record["run_id"])
        if page := result.get("page"):
            found.pages = str(Path(page).parent)
        found.model_version = _model_version(result) or found.model_version
    return found


def figures(value: Any) -> Any:
    """Return a result without its lists, which may be long: the rows of an evaluation, every audit."""
    if not isinstance(value, dict):
        return value
    return {key: figures(each) for key, each in value.items() if not isinstance(each, list)}


def _model_version(result: dict[str, Any]) -> str | None:
    if "promoted" in result and "challenger" in result:  # a challenge names two bundles
        return result["challenger"] if result["promoted"] else result.get("champion")
    return result.get("model_version")
