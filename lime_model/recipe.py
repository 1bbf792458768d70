"""The digest of the training recipe: a bundle trained by other code is not "unchanged"."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Every module whose text decides the bits of a trained model.
MODULES = (
    "config",
    "dataset",
    "examples",
    "features",
    "links",
    "memory",
    "model",
    "svd_start",
    "training",
    "xor",
    "scoring/fold",
)


def recipe_digest() -> str:
    """SHA-256 over the source of the training modules."""
    digest = hashlib.sha256()
    for name in MODULES:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]
