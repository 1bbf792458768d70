"""Digests of code: what other code has trained or computed is not "unchanged"."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable

# Every module whose text decides the bits of a trained model.
MODULES = (
    "config",
    "dataset",
    "encoders",
    "examples",
    "features",
    "links",
    "label_training",
    "loop",
    "losses",
    "memory",
    "metrics",
    "model",
    "prefixes",
    "spool",
    "svd_start",
    "training",
    "windows",
    "xor",
    "scoring/fold",
)

# Every module whose text decides the bits of bank rows, link states and memories of a given bundle.
ROW_MODULES = (
    "bundle",
    "config",
    "encoders",
    "encoding",
    "features",
    "links",
    "memory",
    "model",
    "scoring/canonical",
    "states",
    "xor",
)


# Every module whose text decides the bits of z, of given rows.
SCORE_MODULES = (
    "scoring/anchors",
    "scoring/bank",
    "scoring/canonical",
    "scoring/cells",
    "scoring/fused",
    "scoring/native/__init__",
    "scoring/parts",
    "scoring/reference",
    "scoring/tiled",
    "scoring/tonight",
    "scoring/topk",
)


def score_files() -> list[Traversable]:
    """Source files of `SCORE_MODULES`, and of the compiled kernel."""
    native = files("lime_model") / "scoring" / "native"
    return [*_files(SCORE_MODULES), native / "kernel.cpp", native / "simd.h"]


def recipe_digest() -> str:
    """SHA-256 over the source of the training modules."""
    return source_digest(_files(MODULES))


def row_files() -> list[Traversable]:
    """Source files of `ROW_MODULES`."""
    return _files(ROW_MODULES)


def source_digest(sources: Iterable[Traversable]) -> str:
    """SHA-256 over the text of some files, in order."""
    digest = hashlib.sha256()
    for file in sources:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _files(modules: Iterable[str]) -> list[Traversable]:
    """Wherever the package lies: in a folder, or in the zip that spark-submit ships."""
    return [files("lime_model").joinpath(f"{name}.py") for name in modules]
