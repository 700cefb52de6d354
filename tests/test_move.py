"""Operators that only move values in the core."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relprop
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


WIDE = {
    "heads": ((7, 3, 4, 64), (1, 2, 0, 3)),
    "more than fits one": ((5, 2, 300), (1, 0, 2)),
    "an odd run": ((6, 2, 9), (1, 0, 2)),
}


@pytest.mark.parametrize("name", WIDE)
def test_runs_of_neighbours_move_together(name: str) -> None:
    """Cut out of a larger tensor, read twice, and turned."""
    shape, axes = WIDE[name]
    graph = g.Graph()
    graph.add("input", g.Input((3 * int(np.prod(shape)),)))
    graph.add("rows", g.Reshape((3, *shape)), ["input"])
    turned = []
    for part in range(2):
        graph.add(f"cut{part}", g.Slice(0, part, part + 1), ["rows"])
        graph.add(f"one{part}", g.Reshape(shape), [f"cut{part}"])
        turned.append(graph.add(f"turned{part}", g.Permute(axes), [f"one{part}"]))
    graph.add("both", g.Concat(0), [*turned, turned[0]])
    rng = np.random.default_rng(3)
    x = numbers(rng, (2, *graph.input.shape))
    r = numbers(rng, (2, *graph[graph.output].shape))
    result = relprop.Explainer(graph, rules={object: rules.Pass()})(x, r)
    first, second = (
        x.reshape(2, 3, *shape).swapaxes(0, 1)[:2].transpose(0, 1, *(a + 2 for a in axes))
    )
    np.testing.assert_array_equal(result.scores, np.concatenate([first, second, first], 1))
    given = r.reshape(2, 3, *(shape[a] for a in axes)).transpose(
        1, 0, *(a + 2 for a in np.argsort(axes))
    )
    expected = np.stack([given[0] + given[2], given[1], 0 * given[0]], 1)
    np.testing.assert_allclose(result.relevance, expected.reshape(x.shape), rtol=1e-6)


def test_a_reshape_in_order_takes_no_memory() -> None:
    def memory(*between: g.Operator) -> int:
        graph = g.Graph()
        graph.add("input", g.Input((1000, 64)))
        last = graph.add("dense", g.Dense(np.ones((64, 64), np.float32)), ["input"])
        for operator in between:
            last = graph.add(f"between{len(graph)}", operator, [last])
        graph.add("last", g.Dense(np.ones((64, 64), np.float32)), [last])
        return relprop.Explainer(graph, "epsilon")._compiled.plan.arena_per_sample

    there, back = g.Reshape((1000, 4, 16)), g.Reshape((1000, 64))
    assert memory(there, back) <= memory()  # less where no message goes past them
    assert memory(there, g.Permute((1, 0, 2)), back) > memory()
