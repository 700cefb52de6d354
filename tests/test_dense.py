"""Dense layers in the core against the matrix form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_case_agrees, assert_layer_agrees, build
from cases import (
    BATCHES,
    DENSE,
    KINDS,
    SEEDS,
    Case,
    dense,
    dense_layers,
    linear_rules,
    numbers,
)
from relprop import Explainer


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


@given(sizes=st.tuples(st.integers(1, 150), st.integers(12, 150)), n=st.integers(1, 30),
       kind=KINDS, seed=SEEDS, after_relu=st.booleans(), data=st.data())  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_many_outputs_and_samples(sizes, n, kind, seed, after_relu, data) -> None:
    """Both directions read the weights packed for one of them: panels, whole and begun."""
    rng, rule = np.random.default_rng(seed), data.draw(linear_rules(1))
    layer = dense(*sizes)(rng)
    assert_layer_agrees(
        layer, sizes[:1], rule, rng, n=n, kinds=(kind, data.draw(KINDS)), after_relu=after_relu
    )


def test_a_sample_is_bit_identical_wherever_it_runs() -> None:
    rng = np.random.default_rng(0)
    explainer = Explainer(build(dense(700, 330)(rng), [(700,)]), "epsilon_plus")
    x, r = numbers(rng, (40, 700)), numbers(rng, (40, 330))
    expected = explainer(x, r).relevance
    for first, count in ((0, 1), (7, 2), (13, 3), (1, 5), (20, 16), (39, 1)):
        part = slice(first, first + count)
        np.testing.assert_array_equal(explainer(x[part], r[part]).relevance, expected[part])
