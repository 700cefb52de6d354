"""Pooling in the core against plain windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees
from cases import BATCHES, KINDS, POOL, SEEDS, Case, numbers, pools
from relprop import graph as g
from relprop import rules

MAX_RULES = [rules.WinnerTakesAll(), rules.Proportional(0.1), rules.Proportional(), rules.Zero()]
AVERAGE_RULES = [rules.Epsilon(0.1), rules.Epsilon(), rules.Zero()]


@pytest.mark.parametrize("after_relu", [False, True], ids=["any signs", "after relu"])
@pytest.mark.parametrize("case", POOL, ids=str)
def test_listed_cases(case: Case, after_relu: bool) -> None:
    rng = np.random.default_rng(len(case.name))
    operator = case.layer(rng)
    for kind in ("normal", "grid"):
        x = numbers(rng, (2, *case.shape), kind)
        r = numbers(rng, (2, *operator.infer_shape(case.shape)))
        for rule in MAX_RULES if isinstance(operator, g.MaxPool) else AVERAGE_RULES:
            assert_agrees(operator, [x], rule, r, after_relu=after_relu)


@given(layer=pools("max"), n=BATCHES, seed=SEEDS, kind=KINDS, rule=st.sampled_from(MAX_RULES))
@settings(max_examples=80, deadline=None)
def test_any_max_pool(layer, n, seed, kind, rule) -> None:
    operator, shape = layer
    rng = np.random.default_rng(seed)
    x = numbers(rng, (n, *shape), kind)
    assert_agrees(operator, [x], rule, numbers(rng, (n, *operator.infer_shape(shape))))


@given(
    layer=pools("average"), n=BATCHES, seed=SEEDS, kind=KINDS, rule=st.sampled_from(AVERAGE_RULES)
)
@settings(max_examples=80, deadline=None)
def test_any_average_pool(layer, n, seed, kind, rule) -> None:
    operator, shape = layer
    rng = np.random.default_rng(seed)
    x = numbers(rng, (n, *shape), kind)
    assert_agrees(operator, [x], rule, numbers(rng, (n, *operator.infer_shape(shape))))


@given(
    channels=st.integers(1, 9),
    axes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
    seed=SEEDS,
)
@settings(max_examples=40, deadline=None)
def test_any_adaptive_average(channels, axes, seed) -> None:
    rng = np.random.default_rng(seed)
    sizes, output = zip(*axes)
    x = numbers(rng, (2, channels, *sizes))
    operator = g.AdaptiveAvgPool(output)
    assert_agrees(operator, [x], rules.Epsilon(0.1), numbers(rng, (2, channels, *output)))


@given(data=st.data(), shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_any_mean(data, shape, seed) -> None:
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    operator = g.Mean(
        tuple(sorted(axes)), keepdims=len(axes) == len(shape) or data.draw(st.booleans())
    )
    rng = np.random.default_rng(seed)
    x = numbers(rng, (2, *shape))
    r = numbers(rng, (2, *operator.infer_shape(tuple(shape))))
    assert_agrees(operator, [x], rules.Epsilon(0.1), r)


def test_the_first_of_equal_maxima_wins() -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    assert_agrees(
        g.MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))),
        [x],
        rules.WinnerTakesAll(),
        np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4),
    )
