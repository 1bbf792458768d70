"""Stored link states do not depend on pieces, decode to what was built, and are refused when damaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lime_model.bundle import BundleError
from lime_model.model.entries import Entries
from lime_model.model.lime import History
from lime_model.rows import link_states as states
from lime_model.rows.link_states import StateBuilder, decode_state, encode_state, state_bytes
from tests.lime_model.toys import toy_bundle, toy_config, toy_users


def random_history(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(n)
    return rng.integers(0, 41, n), rng.integers(0, 3, n), np.sort(rng.random(n) * -300)


@pytest.mark.parametrize("variant", ["lime-mha", "lime-xor"])
@pytest.mark.parametrize("n", [0, 1, 11, 12, 13, 40])
def test_a_stored_state_is_what_the_model_reads(variant: str, n: int) -> None:
    bundle = toy_bundle(variant)
    builder = StateBuilder(bundle)
    items, types, days = random_history(n)
    raws = []
    for pieces in (1, 3):
        reader = builder.open(Entries(np.array([[1]]), np.ones((1, 1), np.float32)))
        for part in np.array_split(np.arange(n), pieces):
            if len(part):
                reader.read(items[part], types[part], days[part])
        raws.append(encode_state(reader.finish()))
    assert {len(raw) for raw in raws} == {state_bytes(bundle.config)}
    with torch.inference_mode():
        history: History = builder.embed(items, types, days)
        expected = builder.model.read(history, toy_users([1]))
    for raw in raws:
        links, pools = decode_state(raw, bundle.config)
        np.testing.assert_allclose(links, expected.links[0].numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(pools, expected.pools[0].numpy(), rtol=1e-5, atol=1e-6)
    if n == 0:
        assert not links.any()


def test_after_64_merges_a_state_is_still_that_of_the_whole_history() -> None:
    bundle = toy_bundle("lime-mha")
    builder = StateBuilder(bundle)
    items, types, days = random_history(65 * 16)
    order = np.random.default_rng(3).permutation(len(items))  # events may come late, in any order
    user = Entries(np.array([[1]]), np.ones((1, 1), np.float32))
    raw = b""
    for part in np.split(order, 65):
        reader = builder.open(user, raw)
        reader.read(items[part], types[part], days[part])
        raw = encode_state(reader.finish())
    with torch.inference_mode():
        whole = builder.model.read(builder.embed(items, types, days), toy_users([1]))
    for mine, expected in zip(decode_state(raw, bundle.config), (whole.links, whole.pools), strict=True):
        error = np.linalg.norm(mine - expected[0].numpy()) / np.linalg.norm(expected[0].numpy())
        assert error < 1e-5  # relative, in float64


def test_damaged_states_are_refused() -> None:
    config = toy_config()
    raw = np.ones(state_bytes(config) // 4, "<f4")
    with pytest.raises(BundleError, match=rf"{4 * len(raw) - 4} bytes.*{4 * len(raw)}.*build_link_states"):
        decode_state(raw[1:].tobytes(), config)
    raw[5] = np.nan
    with pytest.raises(BundleError, match="NaN or infinity"):
        decode_state(raw.tobytes(), config)


def test_the_piece_size_is_part_of_the_format() -> None:
    """Another piece size would change stored bits, so every state would have to be rebuilt."""
    assert states.PIECE == 4096
