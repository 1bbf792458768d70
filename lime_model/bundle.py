"""A bundle: weights, config, vocabularies and catalogue of one trained model, with checksums.

A folder of three files and their SHA-256:

    model.safetensors      parameters
    catalogue.safetensors  id rows and feature codes of the items known at training
    bundle.json            config, vocabularies, item ids, training metrics
    SHA256.json            the checksum of each; its own digest is the model version

Nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from lime_model.config import ModelConfig, Vocabulary
from lime_model.errors import LimeError
from lime_model.features import Catalogue
from lime_model.model import LimeModel

CATALOGUE = ("id_rows", "codes", "fame")  # arrays of a `Catalogue`, in its order
CHECKSUMS = "SHA256.json"


class BundleError(LimeError):
    """A bundle that is missing, damaged or does not fit what it is used with."""


@dataclass(frozen=True)
class Bundle:
    """Everything a night needs to know of a model."""

    model: LimeModel
    catalogue: Catalogue
    item_vocabularies: Mapping[str, Vocabulary]
    user_vocabularies: Mapping[str, Vocabulary]
    metrics: Mapping[str, Any]
    version: str

    @property
    def config(self) -> ModelConfig:
        """Sizes and columns of the model."""
        return self.model.config


def build_model(
    config: ModelConfig,
    catalogue: Catalogue,
    items: Mapping[str, Vocabulary],
    users: Mapping[str, Vocabulary],
) -> LimeModel:
    """A fresh model whose tables fit the catalogue and the vocabularies."""
    return LimeModel(
        config,
        item_rows=int(catalogue.id_rows.max(initial=0)) + 1,
        item_sizes=[len(v) for v in items.values()],
        user_sizes=[len(v) for v in users.values()],
    )


def save_bundle(bundle: Bundle, folder: Path) -> str:
    """Write the bundle's files into `folder`; returns the model version."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.contiguous() for k, v in bundle.model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    arrays = {name: getattr(bundle.catalogue, name) for name in CATALOGUE}
    save_arrays(arrays, folder / "catalogue.safetensors")
    described = {
        "config": bundle.config.to_json(),
        "item_vocabularies": {k: list(v.values) for k, v in bundle.item_vocabularies.items()},
        "user_vocabularies": {k: list(v.values) for k, v in bundle.user_vocabularies.items()},
        "item_ids": list(bundle.catalogue.item_ids),
        "metrics": dict(bundle.metrics),
    }
    (folder / "bundle.json").write_text(json.dumps(described, sort_keys=True))
    names = ("bundle.json", "catalogue.safetensors", "model.safetensors")
    text = json.dumps({name: _sha256(folder / name) for name in names}, indent=1)
    (folder / CHECKSUMS).write_text(text)
    return _version(text)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle back, in eval mode, after checking every file.

    Raises:
        BundleError: no bundle there, a checksum is wrong, or parameters do not fit the config.
    """
    text = _checked(folder)
    raw = json.loads((folder / "bundle.json").read_text())
    arrays = load_arrays(folder / "catalogue.safetensors")
    if arrays.keys() != set(CATALOGUE):
        raise BundleError(
            f"{folder}: its catalogue has {sorted(arrays)}, this code wants {CATALOGUE}; train again"
        )
    catalogue = Catalogue(tuple(raw["item_ids"]), arrays["id_rows"], arrays["codes"], arrays["fame"])
    config = ModelConfig.from_json(raw["config"])
    # In the order of the columns: the embedding tables have no names.
    items = {k: Vocabulary(tuple(raw["item_vocabularies"][k])) for k in config.item_columns}
    users = {k: Vocabulary(tuple(raw["user_vocabularies"][k])) for k in config.user_columns}
    model = build_model(config, catalogue, items, users)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        raise BundleError(f"{folder}: parameters do not fit bundle.json; train again. {error}") from error
    return Bundle(model.eval(), catalogue, items, users, raw["metrics"], _version(text))


@functools.cache
def worker_bundle(folder: Path) -> Bundle:
    """`load_bundle`, once per worker process: tasks that share a worker share the bundle."""
    return load_bundle(folder)


def bundle_version(folder: Path) -> str:
    """Model version of the bundle in `folder`, without loading it."""
    return _version(_checked(folder))


def known_item_vectors(model: LimeModel, catalogue: Catalogue) -> np.ndarray[Any, np.dtype[np.float64]]:
    """T of every catalogue row `[I + 1, D]` in float64; row 0 is the unknown item."""
    items = model.items.double()
    with torch.inference_mode():
        vectors = items(torch.from_numpy(catalogue.id_rows), torch.from_numpy(catalogue.codes))
    array: np.ndarray[Any, np.dtype[np.float64]] = vectors.numpy()
    return array


def _checked(folder: Path) -> str:
    path = folder / CHECKSUMS
    if not path.is_file():
        raise BundleError(f"no bundle at {folder}: {CHECKSUMS} is missing; run jobs/train_model.py")
    text = path.read_text()
    for name, expected in json.loads(text).items():
        found = _sha256(folder / name) if (folder / name).is_file() else "no file"
        if found != expected:
            raise BundleError(
                f"{folder / name}: SHA-256 is {found}, {CHECKSUMS} says {expected}; "
                "the file is damaged or was edited: restore it or run jobs/train_model.py"
            )
    return text


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
