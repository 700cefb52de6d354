"""Dense layers in the core against the matrix form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_case_agrees, assert_layer_agrees
from cases import (
    BATCHES,
    DENSE,
    KINDS,
    SEEDS,
    Case,
    dense_layers,
    linear_rules,
)


@pytest.mark.parametrize("after_relu", [False, True], ids=["any signs", "after relu"])
@pytest.mark.parametrize("case", DENSE, ids=str)
def test_listed_cases_under_every_rule(case: Case, after_relu: bool) -> None:
    assert_case_agrees(case, after_relu)


@given(
    layer=dense_layers(),
    data=st.data(),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    after_relu=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_any_dense_layer(layer, data, n, seed, kind, after_relu) -> None:
    operator, shape = layer
    rule, kinds = data.draw(linear_rules(1)), (kind, data.draw(KINDS))
    rng = np.random.default_rng(seed)
    assert_layer_agrees(operator, shape, rule, rng, n=n, kinds=kinds, after_relu=after_relu)
