"""A bundle is read back as it was written, and a damaged one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lime_model.bundle import CHECKSUMS, BundleError, load_bundle, save_bundle
from tests.lime_model.toys import toy_bundle


def test_a_bundle_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    bundle = toy_bundle("lime-mha")
    version = save_bundle(bundle, tmp_path)
    back = load_bundle(tmp_path)
    assert back.version == version
    assert back.config == bundle.config
    assert back.catalogue.item_ids == bundle.catalogue.item_ids
    assert back.item_encoders == bundle.item_encoders
    for name, value in bundle.model.state_dict().items():
        assert torch.equal(value, back.model.state_dict()[name]), name


@pytest.mark.parametrize("name", ["model.safetensors", "catalogue.safetensors", "bundle.json"])
def test_a_flipped_byte_is_refused(tmp_path: Path, name: str) -> None:
    save_bundle(toy_bundle("lime-mha"), tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name}: SHA-256 is .* says .*lime train"):
        load_bundle(tmp_path)


def test_a_missing_file_and_a_missing_bundle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path)
    save_bundle(toy_bundle("lime-mha"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="SHA-256 is no file"):
        load_bundle(tmp_path)


def test_dimensions_that_disagree_are_refused(tmp_path: Path) -> None:
    """The checksums are right, but the config does not fit the parameters."""
    save_bundle(toy_bundle("lime-mha"), tmp_path / "a")
    raw = json.loads((tmp_path / "a" / "bundle.json").read_text())
    raw["config"]["links"] += 1
    (tmp_path / "a" / "bundle.json").write_text(json.dumps(raw))
    sums = json.loads((tmp_path / "a" / CHECKSUMS).read_text())
    import hashlib

    sums["bundle.json"] = hashlib.sha256((tmp_path / "a" / "bundle.json").read_bytes()).hexdigest()
    (tmp_path / "a" / CHECKSUMS).write_text(json.dumps(sums))
    with pytest.raises(BundleError, match="parameters do not fit"):
        load_bundle(tmp_path / "a")
