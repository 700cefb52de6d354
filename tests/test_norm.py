"""Batch norm that stands alone and local response normalisation in the core."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees, away_from_the_sign_test
from cases import BATCHES, KINDS, NORM, SEEDS, Case, numbers
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
