"""Activations in the core: their value, and relevance that passes."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees
from cases import BATCHES, SEEDS, numbers
from relprop import graph as g
from relprop import rules

PARAMETER = {"leaky_relu": 0.1, "elu": 1.3, "power": 3.0}
EXPONENTS = (2.0, -1.0, 0.5, -0.5, 3.0, -2.0, 0.75, 5.5)


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 1, 1), (5, 4, 3)], ids=str)
@pytest.mark.parametrize("function", get_args(g.Function))
def test_activations(function: g.Function, shape: g.Shape) -> None:
    rng = np.random.default_rng(0)
    x = 3 * numbers(rng, (3, *shape))
    operator = g.Activation(function, PARAMETER.get(function, 0.0))
    assert_agrees(operator, [x], rules.Pass(), numbers(rng, (3, *shape)))
    assert_agrees(operator, [x], rules.Zero(), numbers(rng, (3, *shape)))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_powers(exponent: float) -> None:
    rng = np.random.default_rng(0)
    operator = g.Activation("power", exponent)
    x = 10 ** rng.uniform(-4, 4, (3, 1000)).astype(np.float32)
    if exponent == int(exponent):
        x[:, ::2] *= -1
    assert_agrees(operator, [x], rules.Pass(), numbers(rng, x.shape))


def within_float32(function: str, x: g.Array) -> g.Array:
    """Inputs whose cube or exponential does not leave float32."""
    most = {"gelu_tanh": 1e10, "power": 1e10, "exp": 80.0}.get(function, np.inf)
    return np.clip(x, -most, most)


@pytest.mark.parametrize("function", get_args(g.Function))
def test_large_and_tiny_inputs(function: g.Function) -> None:
    x = np.float32([-1e30, -100, -20, -1e-30, 0.0, 1e-30, 20, 100, 1e30]).reshape(1, -1)
    operator = g.Activation(function, PARAMETER.get(function, 0.0))
    x = within_float32(function, x)
    assert_agrees(operator, [x], rules.Pass(), np.ones_like(x))


BOUNDS = st.sampled_from([-math.inf, -1.0, -0.25, 0.0, 0.5, 6.0, math.inf])
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@given(bounds=st.tuples(BOUNDS, BOUNDS).map(sorted), shape=SHAPES, n=BATCHES, seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_any_clip(bounds, shape, n, seed) -> None:
    low, high = bounds
    if math.isinf(low) and low == high:
        return
    rng = np.random.default_rng(seed)
    x = 3 * numbers(rng, (n, *shape))
    assert_agrees(g.Clip(low, high), [x], rules.Pass(), numbers(rng, (n, *shape)))


@given(shape=SHAPES, one=st.booleans(), n=BATCHES, seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_any_prelu(shape, one, n, seed) -> None:
    rng = np.random.default_rng(seed)
    x, r = (numbers(rng, (n, *shape)) for _ in range(2))
    operator = g.PReLU(numbers(rng, (1 if one else shape[0],)))
    for rule in (rules.Pass(), rules.Zero()):
        assert_agrees(operator, [x], rule, r)
