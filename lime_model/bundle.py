"""A bundle: weights, config, encoders and catalogue of one trained model, with checksums.

It is a folder of three files and their SHA-256:

    model.safetensors      parameters
    catalogue.safetensors  id rows, feature entries and fame of the items known at training
    bundle.json            config, encoders of the columns, item ids, training metrics
    SHA256.json            the checksum of each file; the digest of this file is the model version

Nothing is ever unpickled.

Letters: I items, D width.
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

from lime_model.arrays import Floats
from lime_model.config import ModelConfig
from lime_model.errors import LimeError
from lime_model.model.encoders import encoder_from_json, encoder_to_json
from lime_model.model.entries import Entries
from lime_model.model.features import Catalogue, Encoders, table_rows
from lime_model.model.lime import LimeModel

CATALOGUE = ("id_rows", "slots", "weights", "fame")  # arrays of a `Catalogue`
CHECKSUMS = "SHA256.json"


class BundleError(LimeError):
    """A bundle that is missing, is damaged or does not fit what it is used with."""


@dataclass(frozen=True)
class Bundle:
    """Everything that a night reads of a model."""

    model: LimeModel
    catalogue: Catalogue
    item_encoders: Encoders
    user_encoders: Encoders
    metrics: Mapping[str, Any]
    version: str

    @property
    def config(self) -> ModelConfig:
        """Sizes and columns of the model."""
        return self.model.config


def build_model(
    config: ModelConfig,
    catalogue: Catalogue,
    items: Encoders,
    users: Encoders,
) -> LimeModel:
    """Build a new model whose tables fit the catalogue and the columns.

    Args:
        config: sizes, variant and columns.
        catalogue: the items.
        items: encoders of the item columns.
        users: encoders of the user columns.
    """
    return LimeModel(
        config,
        item_rows=int(catalogue.id_rows.max(initial=0)) + 1,
        item_feature_rows=table_rows(items),
        user_feature_rows=table_rows(users),
    )


def save_bundle(bundle: Bundle, folder: Path) -> str:
    """Write the bundle's files into `folder` and return the model version."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.contiguous() for k, v in bundle.model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    known = bundle.catalogue
    slots, weights = known.features
    arrays: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
        "id_rows": known.id_rows,
        "slots": slots,
        "weights": weights,
        "fame": known.fame,
    }
    save_arrays(arrays, folder / "catalogue.safetensors")
    described = {
        "config": bundle.config.to_json(),
        "item_encoders": {name: encoder_to_json(e) for name, e in bundle.item_encoders.items()},
        "user_encoders": {name: encoder_to_json(e) for name, e in bundle.user_encoders.items()},
        "item_ids": list(bundle.catalogue.item_ids),
        "metrics": dict(bundle.metrics),
    }
    (folder / "bundle.json").write_text(json.dumps(described, sort_keys=True))
    names = ("bundle.json", "catalogue.safetensors", "model.safetensors")
    text = json.dumps({name: _sha256(folder / name) for name in names}, indent=1)
    (folder / CHECKSUMS).write_text(text)
    return _version(text)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle, in eval mode, after checking every file.

        bundle = load_bundle(Path("bundle"))
        weights = Weights.of(bundle.model)

    Raises:
        BundleError: the folder has no bundle, a checksum is wrong, or parameters do not fit the config.
    """
    text = _checked(folder)
    raw = json.loads((folder / "bundle.json").read_text())
    arrays = load_arrays(folder / "catalogue.safetensors")
    if arrays.keys() != set(CATALOGUE):
        raise BundleError(
            f"{folder}: the catalogue has {sorted(arrays)} and this code wants {CATALOGUE}; train again"
        )
    id_rows, slots, weights, fame = (arrays[name] for name in CATALOGUE)
    catalogue = Catalogue(tuple(raw["item_ids"]), id_rows, Entries(slots, weights), fame)
    config = ModelConfig.from_json(raw["config"])
    # The order of the columns is that of training: their blocks of the embedding table have no names.
    items = {c.name: encoder_from_json(c, raw["item_encoders"][c.name]) for c in config.item_columns}
    users = {c.name: encoder_from_json(c, raw["user_encoders"][c.name]) for c in config.user_columns}
    model = build_model(config, catalogue, items, users)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except RuntimeError as error:
        raise BundleError(f"{folder}: parameters do not fit bundle.json; train again. {error}") from error
    return Bundle(model.eval(), catalogue, items, users, raw["metrics"], _version(text))


@functools.cache
def worker_bundle(folder: Path) -> Bundle:
    """Load a bundle once per worker process: tasks that share a worker share the bundle."""
    return load_bundle(folder)


def bundle_version(folder: Path) -> str:
    """Return the model version of the bundle in `folder` without loading it."""
    return _version(_checked(folder))


def known_item_vectors(model: LimeModel, catalogue: Catalogue) -> Floats:
    """Compute T of every catalogue row `[I + 1, D]` in float64; row 0 is the unknown item."""
    model.items.double()
    with torch.inference_mode():
        array: Floats = model.embed_items(catalogue).numpy()
    return array


def _checked(folder: Path) -> str:
    """Check every file of a bundle and return the text of its checksums."""
    path = folder / CHECKSUMS
    if not path.is_file():
        raise BundleError(f"no bundle at {folder}: {CHECKSUMS} is missing; train one with lime train")
    text = path.read_text()
    for name, expected in json.loads(text).items():
        found = _sha256(folder / name) if (folder / name).is_file() else "no file"
        if found != expected:
            raise BundleError(
                f"{folder / name}: SHA-256 is {found}, {CHECKSUMS} says {expected}; "
                "the file is damaged or was edited: restore it, or train one with lime train"
            )
    return text


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(text: str) -> str:
    """Return the model version from the text of the checksums."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
