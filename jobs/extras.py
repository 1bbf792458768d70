"""The extras of the package: which of them installs a library that a command did not find."""

from __future__ import annotations

from typing import Final

from lime_model.errors import LimeError

PACKAGE: Final = "lime-batch-scoring"
# The extra by the name under which a library is imported; pyproject.toml has the extras with their libraries.
EXTRAS: Final = {
    "delta": "spark",
    "pandas": "spark",
    "py4j": "spark",
    "pyspark": "spark",
    "safetensors": "spark",
    "torch": "spark",
    "matplotlib": "train",
    "scipy": "train",
    "redis": "redis",
    "airflow": "airflow",
    "httpx": "airflow",
    "openlineage": "airflow",
    "pendulum": "airflow",
}
# The library that people know, where it brings the one that was not found.
BROUGHT_BY: Final = {"py4j": "pyspark", "httpx": "airflow", "openlineage": "airflow", "pendulum": "airflow"}


class MissingExtra(LimeError):
    """A command needs a library that is installed only with an extra of the package."""

    def __init__(self, library: str) -> None:
        known = BROUGHT_BY.get(library, library)
        super().__init__(
            f"this command needs {known}, which is not installed; install it with its extra: "
            f"pip install '{PACKAGE}[{EXTRAS[library]}]'"
        )


def find_missing_extra(error: BaseException) -> MissingExtra | None:
    """Return the error to report for an import that failed; None if no extra installs what is missing."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    library = (error.name or "").partition(".")[0]
    return MissingExtra(library) if library in EXTRAS else None
