"""Batch norm that stands alone, layer, group and local response norm in the core."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees, away_from_the_sign_test
from cases import BATCHES, KINDS, LAYER_NORM, NORM, SEEDS, Case, numbers
from relprop import graph as g
from relprop import rules

BATCH_NORM_RULES = [
    rules.Epsilon(0.1),
    rules.Epsilon(),
    rules.Pass(),
    rules.Zero(),
]
RESPONSE_RULES = [rules.Pass(), rules.Taylor(), rules.Zero()]


@pytest.mark.parametrize("case", NORM, ids=str)
def test_listed_cases(case: Case) -> None:
    rng = np.random.default_rng(len(case.name))
    operator = case.layer(rng)
    x, r = numbers(rng, (2, *case.shape)), numbers(rng, (2, *case.shape))
    for rule in BATCH_NORM_RULES if isinstance(operator, g.BatchNorm) else RESPONSE_RULES:
        assert_agrees(operator, [x], rule, r)
        assert_agrees(operator, [x], rule, r, after_relu=True)


@given(
    shape=st.tuples(st.integers(1, 20)) | st.tuples(*[st.integers(1, 6)] * 3),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    rule=st.sampled_from(BATCH_NORM_RULES),
)
@settings(max_examples=60, deadline=None)
def test_any_batch_norm(shape, n, seed, kind, rule) -> None:
    rng = np.random.default_rng(seed)
    operator = g.BatchNorm(numbers(rng, (shape[0],), kind), numbers(rng, (shape[0],), kind))
    x, r = numbers(rng, (n, *shape), kind), numbers(rng, (n, *shape))
    assert_agrees(operator, [x], rule, away_from_the_sign_test(operator, rule, x, r))


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    size=st.integers(1, 7),
    alpha=st.sampled_from([1e-4, 0.3]),
    beta=st.sampled_from([0.5, 0.75, 1.0]),
    k=st.sampled_from([1.0, 2.0]),
    within=st.booleans(),
    n=BATCHES,
    seed=SEEDS,
    rule=st.sampled_from(RESPONSE_RULES),
)
@settings(max_examples=60, deadline=None)
def test_any_response_norm(shape, size, alpha, beta, k, within, n, seed, rule) -> None:
    rng = np.random.default_rng(seed)
    x = np.abs(numbers(rng, (n, *shape))) + np.float32(0.1)
    operator = g.LocalResponseNorm(size, alpha, beta, k, within)
    assert_agrees(operator, [x], rule, np.abs(numbers(rng, (n, *shape))))


LAYER_NORM_RULES = [rules.Epsilon(0.1), rules.Epsilon(), rules.Gradient(), rules.Zero()]


@pytest.mark.parametrize("case", LAYER_NORM, ids=str)
def test_listed_norms_of_samples(case: Case) -> None:
    rng = np.random.default_rng(len(case.name))
    operator = case.layer(rng)
    x, r = numbers(rng, (2, *case.shape)), numbers(rng, (2, *case.shape))
    for rule in LAYER_NORM_RULES:
        assert_agrees(operator, [x], rule, r)
        assert_agrees(operator, [x + 3], rule, r)


@given(
    rows=st.lists(st.integers(1, 4), max_size=2),
    over=st.lists(st.integers(1, 30), min_size=1, max_size=2),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    bias=st.booleans(),
    centred=st.booleans(),
    rule=st.sampled_from(LAYER_NORM_RULES),
)
@settings(max_examples=60, deadline=None)
def test_any_layer_norm(rows, over, n, seed, kind, bias, centred, rule) -> None:
    rng = np.random.default_rng(seed)
    shift = numbers(rng, tuple(over)) if bias else None
    operator = g.LayerNorm(numbers(rng, tuple(over), kind), shift, 1e-3, centred)
    shape = (n, *rows, *over)
    assert_agrees(operator, [numbers(rng, shape, kind)], rule, numbers(rng, shape))


@given(
    each=st.integers(1, 4),
    groups=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 5), max_size=3),
    n=BATCHES,
    seed=SEEDS,
    rule=st.sampled_from(LAYER_NORM_RULES),
)
@settings(max_examples=60, deadline=None)
def test_any_group_norm(each, groups, sizes, n, seed, rule) -> None:
    rng = np.random.default_rng(seed)
    channels = each * groups
    operator = g.GroupNorm(groups, numbers(rng, (channels,)), numbers(rng, (channels,)), 1e-3)
    shape = (n, channels, *sizes)
    assert_agrees(operator, [numbers(rng, shape)], rule, numbers(rng, shape))


def test_norms_that_do_not_fit() -> None:
    ones = np.ones(4, np.float32)
    graph = g.Graph()
    graph.add("x", g.Input((6, 5)))
    with pytest.raises(ValueError, match=r"weight \(4,\) does not fit the last axes"):
        graph.add("layer norm", g.LayerNorm(ones), ["x"])
    six = np.ones(6, np.float32)
    with pytest.raises(ValueError, match="groups=4 must divide 6"):
        graph.add("group norm", g.GroupNorm(4, six, six), ["x"])
    with pytest.raises(ValueError, match="epsilon must be finite and >= 0, not nan"):
        graph.add("layer norm", g.LayerNorm(np.ones(5, np.float32), None, np.nan), ["x"])
