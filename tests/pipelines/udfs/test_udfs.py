"""UDF bodies without Spark: a row that can't be computed fails by name, or is left empty."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from lime_model.bundle import Bundle, BundleError, build_model, save_bundle
from lime_model.config import Column
from lime_model.model.encoders import fit_encoder
from lime_model.model.entries import FeatureError
from lime_model.model.features import Catalogue
from lime_model.rows.link_states import decode_state
from pipelines.udfs.encode_items import encode_items
from pipelines.udfs.reduce_states import reduce_states
from tests.lime_model.toys import toy_catalogue, toy_config, toy_model


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Save a bundle whose item of kind "b" and whose event type "view" hold NaN."""
    model = toy_model(toy_config())
    with torch.no_grad():
        model.items.features.table.weight[2] = torch.nan
        model.event_type.weight[2] = torch.nan
    catalogue, items, users = toy_catalogue()
    save_bundle(Bundle(model, catalogue, items, users, {}, ""), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_an_item_without_finite_factors_fails_by_name_or_is_left_empty(broken: Path) -> None:
    batch = pa.record_batch({"item_id": ["x", "y"], "_fingerprint": ["", ""], "kind": ["a", "b"]})
    with pytest.raises(BundleError, match=r"1 items have NaN .* the first is 'y'"):
        list(encode_items(iter([batch]), broken))
    (out,) = encode_items(iter([batch]), broken, strict=False)
    for name in ("link_weights", "head_input", "dot"):
        whole, empty = out.column(name).to_pylist()
        assert len(whole) > 0
        assert empty == b""


def test_a_user_without_a_finite_state_fails_by_name_or_is_left_empty(broken: Path) -> None:
    day = dt.datetime(2024, 4, 1, tzinfo=dt.UTC)
    rows = {
        "bucket": pa.array([0, 0, 0, 0], pa.int32()),
        "user_id": [1, 1, 2, 2],
        "item_id": [None, "3", None, "3"],
        "event_ts": pa.array([None, day, None, day], pa.timestamp("us", tz="UTC")),
        "event_type": [None, "purchase", None, "view"],
        "user_values": ['{"region": "n"}', "", '{"region": "s"}', ""],
        "fingerprint": ["a", "", "b", ""],
        "history_xor": [0, 0, 0, 0],
        "history_sum": [0, 0, 0, 0],
    }
    batch = pa.record_batch(rows)
    with pytest.raises(BundleError, match=r"^user 2: .*NaN .*1 events"):
        list(reduce_states(iter([batch]), broken))
    (out,) = reduce_states(iter([batch]), broken, strict=False)
    whole, empty = out.column("state").to_pylist()
    links, _ = decode_state(whole, toy_config())
    assert links.any()
    assert empty == b""
    with pytest.raises(BundleError, match="there is no link state"):
        decode_state(empty, toy_config())


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    """Save a bundle that reads a vector of two numbers of every item and every user."""
    column = Column("picture", "vector", 2)
    config = dataclasses.replace(toy_config(), item_columns=(column,), user_columns=(column,))
    encoders = {"picture": fit_encoder(column, [[1.0, 2.0]])}
    catalogue = Catalogue.build(["1"], {}, encoders, np.ones(1, np.bool_))
    torch.manual_seed(0)
    model = build_model(config, catalogue, encoders, encoders)
    save_bundle(Bundle(model, catalogue, encoders, encoders, {}, ""), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_an_item_that_cannot_be_read_fails_by_name_or_is_left_empty(pictured: Path) -> None:
    pictures = [[1.0, 2.0], [1.0], None]
    batch = pa.record_batch({"item_id": ["x", "y", "z"], "_fingerprint": [""] * 3, "picture": pictures})
    with pytest.raises(FeatureError, match=r"^item 'y': column picture: a vector has 1 numbers.*max_damaged"):
        list(encode_items(iter([batch]), pictured))
    (out,) = encode_items(iter([batch]), pictured, strict=False)
    assert [len(blob) > 0 for blob in out.column("dot").to_pylist()] == [True, False, True]


def test_a_user_that_cannot_be_read_fails_by_name_or_is_left_empty(pictured: Path) -> None:
    rows = {
        "bucket": pa.array([0, 0], pa.int32()),
        "user_id": [1, 2],
        "item_id": pa.array([None, None], pa.string()),
        "event_ts": pa.array([None, None], pa.timestamp("us", tz="UTC")),
        "event_type": pa.array([None, None], pa.string()),
        "user_values": ['{"picture": [1.0, 2.0]}', '{"picture": [1.0, 2.0, 3.0]}'],
        "fingerprint": ["a", "b"],
        "history_xor": [0, 0],
        "history_sum": [0, 0],
    }
    batch = pa.record_batch(rows)
    with pytest.raises(FeatureError, match=r"^user 2: column picture: a vector has 3 numbers"):
        list(reduce_states(iter([batch]), pictured))
    (out,) = reduce_states(iter([batch]), pictured, strict=False)
    assert [len(blob) > 0 for blob in out.column("state").to_pylist()] == [True, False]
