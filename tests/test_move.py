"""Operators that only move values in the core."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees
from cases import BATCHES, SEEDS, numbers
from relprop import graph as g
from relprop import rules

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@st.composite
def moves(draw: st.DrawFn) -> tuple[g.Operator, g.Shape]:
    """A slice, pad, reshape, permutation or identity and an input shape."""
    shape = tuple(draw(SHAPES))
    axes = range(len(shape))
    which = draw(st.sampled_from(["slice", "pad", "reshape", "permute", "identity"]))
    if which == "slice":
        axis = draw(st.sampled_from(axes))
        start = draw(st.integers(0, shape[axis] - 1))
        stop = draw(st.integers(start + 1, shape[axis]))
        return g.Slice(axis, start, stop, draw(st.integers(1, 3))), shape
    if which == "pad":
        pads = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in axes)
        return g.Pad(pads, draw(st.sampled_from([0.0, 1.5, -2.0]))), shape
    if which == "reshape":
        order = draw(st.permutations(shape))
        cut = draw(st.integers(0, len(shape)))
        merged = (*order[:cut], int(np.prod(order[cut:])))
        return g.Reshape(merged), shape
    if which == "permute":
        return g.Permute(tuple(draw(st.permutations(axes)))), shape
    return g.Identity(), shape


@given(layer=moves(), n=BATCHES, seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_any_movement(layer, n, seed) -> None:
    operator, shape = layer
    rng = np.random.default_rng(seed)
    x = numbers(rng, (n, *shape))
    assert_agrees(operator, [x], rules.Pass(), numbers(rng, (n, *operator.infer_shape(shape))))
