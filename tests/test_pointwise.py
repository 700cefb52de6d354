"""Activations in the core: their value, and relevance that passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees
from cases import BATCHES, SEEDS, numbers
from relprop import Explainer, rules
from relprop import graph as g

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


def forward(function: g.Function, x: g.Array) -> g.Array:
    graph = g.Graph()
    graph.add("input", g.Input((x.size,)))
    graph.add("layer", g.Activation(function, PARAMETER.get(function, 0.0)), ["input"])
    return Explainer(graph, "epsilon").forward(x.reshape(1, -1))[0]


EXACT: dict[g.Function, Callable[[float], float]] = {
    "exp": math.exp,
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "silu": lambda v: v / (1 + math.exp(-v)),
    "gelu": lambda v: 0.5 * v * math.erfc(-v / math.sqrt(2)),
    "gelu_tanh": lambda v: v / (1 + math.exp(-math.sqrt(8 / math.pi) * (v + 0.044715 * v**3))),
    "elu": lambda v: v if v > 0 else PARAMETER["elu"] * math.expm1(v),
    "softplus": lambda v: max(v, 0.0) + math.log1p(math.exp(-abs(v))),
}


@pytest.mark.parametrize("function", EXACT)
def test_values_are_exact_to_a_few_bits_where_they_vanish_too(function: g.Function) -> None:
    """An exponential of v^2 errs by as much more as v^2 is rounded."""
    tiny = np.geomspace(1e-30, 1e-3, 500)
    x = np.concatenate([-tiny, [0.0], tiny, np.linspace(-9, 9, 20001)]).astype(np.float32)
    expected = np.array([EXACT[function](float(v)) for v in x])
    error = abs(forward(function, x) - expected) / np.maximum(abs(expected), 1e-37)
    allowed = 6e-7 * (1 + (x**2 if "gelu" in function else 0))
    assert (error <= allowed).all(), (x[(error / allowed).argmax()], (error / allowed).max())


@pytest.mark.parametrize("function", EXACT)
def test_values_do_not_depend_on_their_neighbours(function: g.Function) -> None:
    """Vectors and what is left of a row give the same bits."""
    x = numbers(np.random.default_rng(0), (37,)) * 4
    whole = forward(function, x)
    for count in (1, 3, 8, 15, 31):
        np.testing.assert_array_equal(forward(function, x[:count]), whole[:count])


def test_an_exponential_beyond_float32_is_told() -> None:
    assert np.isfinite(forward("exp", np.float32([88.7, -200.0]))).all()
    with pytest.raises(ValueError, match="not finite for sample 0"):
        forward("exp", np.float32([88.8]))


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
