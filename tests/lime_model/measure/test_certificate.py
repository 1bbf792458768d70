"""The exactness certificate refuses lists whose scores are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from lime_model.bundle import Bundle
from lime_model.measure.certificate import Certifier
from lime_model.rows.items import ItemEncoder
from tests.lime_model.toys import toy_catalogue, toy_config, toy_model


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_score_that_is_not_finite_fails_the_certificate(bad: float) -> None:
    catalogue, of_items, of_users = toy_catalogue()
    bundle = Bundle(toy_model(toy_config()), catalogue, of_items, of_users, {}, "")
    items = len(catalogue.item_ids)
    inputs, _ = ItemEncoder(bundle).read(catalogue.item_ids, {})
    certifier = Certifier(bundle, inputs, np.zeros(items), np.ones(items, np.bool_))
    scores, nothing = np.linspace(1, 0, items), np.zeros(0, np.int64)
    listed = scores[:3].astype(np.float32)
    assert certifier.check(scores, nothing, np.arange(3), listed, 3, 1e-4).fault == ""
    listed[0] = bad
    assert "not finite" in certifier.check(scores, nothing, np.arange(3), listed, 3, 1e-4).fault
