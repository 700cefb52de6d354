"""Dense layers in the core against the matrix form."""

from __future__ import annotations

import os

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
from relprop import Explainer, rules
from relprop import graph as g
from relprop.rules import Rule


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


@given(sizes=st.tuples(st.integers(1, 150) | st.integers(500, 540), st.integers(1, 150)),
       n=st.integers(1, 30), kind=KINDS, seed=SEEDS, after_relu=st.booleans(),
       data=st.data())  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_many_features_and_samples(sizes, n, kind, seed, after_relu, data) -> None:
    """Tiles, vectors and runs of them, whole and begun."""
    rng, rule = np.random.default_rng(seed), data.draw(linear_rules(1))
    layer = dense(*sizes)(rng)
    assert_layer_agrees(
        layer, sizes[:1], rule, rng, n=n, kinds=(kind, data.draw(KINDS)), after_relu=after_relu
    )


@pytest.mark.parametrize(
    "rule", [rules.Epsilon(), rules.AlphaBeta(2, 1), rules.Gamma(), rules.ZPlus()], ids=str
)
@pytest.mark.parametrize("sizes", [(700, 330), (1037, 101), (13, 50)], ids=str)
def test_a_sample_is_bit_identical_wherever_it_runs(sizes: tuple[int, int], rule: Rule) -> None:
    rng = np.random.default_rng(0)
    layer = dense(*sizes)(rng)
    explainer = Explainer(build(layer, [sizes[:1]]), rules={"layer": rule})
    x, r = numbers(rng, (40, sizes[0])), numbers(rng, (40, sizes[1]))
    expected = explainer(x, r)
    for first, count in ((0, 1), (7, 2), (13, 3), (1, 5), (20, 16), (39, 1)):
        part = slice(first, first + count)
        result = explainer(x[part], r[part])
        np.testing.assert_array_equal(result.relevance, expected.relevance[part])
        np.testing.assert_array_equal(result.scores, expected.scores[part])
    # At other addresses, which say nothing of those in a GPU's memory.
    count = 1 if os.environ.get("RELPROP_DEVICE") == "cuda" else 6
    for other in [g.Dense(layer.weight.copy(), layer.bias) for _ in range(count)]:
        result = Explainer(build(other, [sizes[:1]]), rules={"layer": rule})(x, r)
        np.testing.assert_array_equal(result.relevance, expected.relevance)
        np.testing.assert_array_equal(result.scores, expected.scores)


def test_pixels_that_read_padding_alone() -> None:
    """A layer of single pixels is none that reads its input densely: its one tap lies outside."""
    rng = np.random.default_rng(0)
    layer = g.Conv(numbers(rng, (20, 6, 1, 1)), numbers(rng, (20,)), (2, 2), ((1, 0), (0, 0)))
    for rule in (rules.Epsilon(), rules.ZPlus(), rules.WSquare()):
        assert_layer_agrees(layer, (6, 1, 1), rule, rng)
