"""Canonizers keep what a Graph computes, change nothing in place, and fold what can be folded."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import forward
from relprop import graph as g
from relprop.canonizers import (
    CANONIZERS,
    canonize,
    cut_final_softmax,
    drop_no_ops,
    fold_batch_norms,
    fold_pads,
)

IMAGE = (4, 6, 5)


def numbers(*shape: int, seed: int = 0) -> g.Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chain(shape: g.Shape, *operators: g.Operator) -> g.Graph:
    """Operators one after the other, named by position."""
    graph = g.Graph()
    last = graph.add("input", g.Input(shape))
    for position, operator in enumerate(operators):
        last = graph.add(str(position), operator, [last])
    return graph


def conv(channels: int = 4, width: int = 4, padding: int = 0, groups: int = 1, bias: bool = True):
    return g.Conv(
        numbers(width, channels // groups, 3, 3),
        numbers(width) if bias else None,
        padding=((padding, padding),) * 2,
        groups=groups,
    )


def norm(channels: int = 4, shift: bool = True, seed: int = 1) -> g.BatchNorm:
    scale, offset = numbers(2, channels, seed=seed)
    return g.BatchNorm(scale, offset if shift else np.zeros_like(offset))


def assert_same(before: g.Graph, after: g.Graph, tolerance: float = 1e-6) -> None:
    x = numbers(2, *before.input.shape, seed=2)
    expected, result = forward(before, x)[before.output], forward(after, x)[after.output]
    assert result.shape == expected.shape
    assert abs(result - expected).max() <= tolerance * max(abs(expected).max(), 1e-30)


def types(graph: g.Graph) -> list[str]:
    return [node.type for node in graph if node.type != "Input"]


def snapshot(graph: g.Graph) -> tuple[str, str, list[bytes]]:
    arrays = [
        value.tobytes()
        for node in graph
        for value in vars(node.operator).values()
        if isinstance(value, np.ndarray)
    ]
    return str(graph), graph.output, arrays


def every_kind() -> g.Graph:
    """A graph in which every canonizer finds something."""
    return chain(
        IMAGE,
        g.Pad(((0, 0), (1, 1), (1, 0))),
        conv(),
        norm(),
        g.Identity(),
        g.Activation("relu"),
        g.Reshape((4 * 6 * 4,)),
        g.Dense(numbers(3, 4 * 6 * 4)),
        g.Softmax(0),
    )


@pytest.mark.parametrize("canonizer", [*CANONIZERS, canonize])
def test_the_argument_is_left_as_it_is(canonizer: Callable[[g.Graph], g.Graph]):
    graph = every_kind()
    before = snapshot(graph)
    assert canonizer(graph) is not graph
    assert snapshot(graph) == before


def test_all_in_order():
    graph = every_kind()
    after = canonize(graph)
    assert types(after) == ["Conv", "Activation", "Reshape", "Dense"]
    assert list(after.nodes) == ["input", "1", "4", "5", "6"]
    del graph.nodes["7"]
    graph.outputs = {"6": "6"}
    assert_same(graph, after)


# --- Softmax -----------------------------------------------------------------------------------


def test_only_a_final_softmax_is_cut():
    dense = g.Dense(numbers(4, 4))
    assert types(cut_final_softmax(chain((4,), dense, g.Softmax(0)))) == ["Dense"]
    flattened = chain((4, 1, 1), g.Pad(((0, 0),) * 3), g.Softmax(0), g.Reshape((4,)))
    assert types(cut_final_softmax(flattened)) == ["Pad", "Reshape"]
    inside = chain((4,), g.Softmax(0), dense)
    assert types(cut_final_softmax(inside)) == ["Softmax", "Dense"]


def test_the_softmax_of_every_output_is_cut_where_nothing_else_reads_it():
    graph = chain((4,), g.Dense(numbers(3, 4)), g.Softmax(0), g.Dense(numbers(2, 3)), g.Softmax(0))
    graph.add("flat", g.Reshape((1, 2)), ["3"])
    graph.outputs = {"first": "1", "logits": "0", "second": "flat", "unread": "input"}
    after = canonize(graph)
    # The second layer still reads the first one's softmax.
    assert types(after) == ["Dense", "Softmax", "Dense", "Reshape"]
    assert after.outputs == {"first": "0", "logits": "0", "second": "flat", "unread": "input"}
    assert after["flat"].inputs == ("2",)
    assert canonize(graph.explaining("first")).outputs == {"first": "0"}
    # What another output reads behind the chain keeps it.
    graph.add("more", g.Activation("relu"), ["flat"])
    graph.outputs = {"second": "flat", "more": "more"}
    assert "3" in canonize(graph).nodes


def test_an_output_is_not_folded_away():
    graph = chain(IMAGE, conv(), norm(), g.Activation("relu"))
    graph.outputs = {"before": "0", "after": "2"}
    assert types(canonize(graph)) == ["Conv", "BatchNorm", "Activation"]
    assert types(canonize(graph.explaining("after"))) == ["Conv", "Activation"]


# --- No-ops ------------------------------------------------------------------------------------

NO_OPS = [
    g.Identity(),
    g.Reshape(IMAGE),
    g.Permute((0, 1, 2)),
    g.Slice(1, 0, 6),
    g.Pad(((0, 0), (0, 0), (0, 0)), 1.0),
    g.AdaptiveAvgPool((6, 5)),
    g.MaxPool((1, 1), (1, 1)),
    g.AvgPool((1, 1), (1, 1)),
    g.Concat(0),
]
OPS = [
    g.AdaptiveAvgPool((3, 5)),
    g.MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))),
    g.AvgPool((1, 1), (1, 1), divisor=2),
    g.Slice(0, 0, 4, 2),
    g.Slice(2, 1, 5),
]


@pytest.mark.parametrize("operator", NO_OPS)
def test_no_ops_are_dropped(operator: g.Operator):
    for graph in (
        chain(IMAGE, operator, g.Activation("relu")),
        chain(IMAGE, g.Activation("relu"), operator, operator),
    ):
        after = drop_no_ops(graph)
        assert types(after) == ["Activation"]
        assert_same(graph, after, 0.0)


@pytest.mark.parametrize("operator", OPS)
def test_what_does_something_stays(operator: g.Operator):
    graph = chain(IMAGE, operator)
    assert types(drop_no_ops(graph)) == types(graph)


def test_a_permutation_of_equal_sizes_stays():
    assert types(drop_no_ops(chain((3, 3, 3), g.Permute((0, 2, 1))))) == ["Permute"]


def test_nodes_that_nothing_reads_are_dropped_with_their_reader():
    graph = chain((4,), g.Identity(), g.Activation("relu"))
    graph.add("unread", g.Activation("tanh"), ["input"])
    graph.outputs = {"1": "1"}
    assert list(drop_no_ops(graph).nodes) == ["input", "1"]


# --- Pads --------------------------------------------------------------------------------------

PAD = g.Pad(((0, 0), (1, 0), (2, 1)))
FOLDED = [
    [PAD, conv(padding=1)],
    [PAD, PAD, conv()],
    [PAD, g.AvgPool((3, 4), (2, 1))],
    [PAD, g.AvgPool((3, 4), (1, 2), ((1, 1), (0, 0)))],
    [PAD, g.AvgPool((3, 4), (1, 2), count_include_pad=False)],
    [PAD, g.AvgPool((3, 4), (1, 2), count_include_pad=False, divisor=5)],
    [g.Activation("relu"), PAD, g.MaxPool((3, 3), (2, 2))],
    [g.Activation("relu6"), g.AvgPool((2, 2), (1, 1)), PAD, g.MaxPool((3, 3), (1, 1))],
]
NOT_FOLDED = [
    [PAD, g.MaxPool((3, 3), (2, 2))],  # a zero may beat what is below zero
    [g.Activation("tanh"), PAD, g.MaxPool((3, 3), (2, 2))],
    [g.Activation("relu"), PAD, g.MaxPool((2, 2), (1, 1))],  # windows with nothing but padding
    [
        g.AvgPool((5, 1), (5, 1)),
        g.Activation("relu"),
        g.Pad(((0, 0), (1, 1), (0, 0))),
        g.MaxPool((2, 1), (1, 1), dilation=(2, 1)),
    ],
    [PAD, g.AvgPool((3, 4), (1, 2), ((1, 1), (0, 0)), count_include_pad=False)],
    [g.Pad(PAD.pads, 0.5), conv()],
    [g.Pad(((2, 2), (0, 0), (0, 0))), conv(8)],
    [PAD, g.Activation("relu"), conv()],
    [PAD],
]


@pytest.mark.parametrize("operators", FOLDED)
def test_pads_are_folded(operators: list[g.Operator]):
    graph = chain(IMAGE, *operators)
    after = fold_pads(graph)
    assert "Pad" not in types(after)
    assert_same(graph, after, 1e-12)


@pytest.mark.parametrize("operators", NOT_FOLDED)
def test_pads_that_are_not_folded(operators: list[g.Operator]):
    graph = chain(IMAGE, *operators)
    assert types(fold_pads(graph)) == types(graph)


def test_a_pad_is_folded_only_into_all_of_its_readers():
    graph = chain(IMAGE, PAD, conv())
    graph.add("pooled", g.MaxPool((3, 3), (1, 1)), ["0"])
    graph.add("sum", g.Add(), ["1", "pooled"])
    assert "Pad" in types(fold_pads(graph))
    both = chain(IMAGE, PAD, conv())
    both.add("second", g.AvgPool((3, 3), (1, 1)), ["0"])
    both.add("sum", g.Add(), ["1", "second"])
    after = fold_pads(both)
    assert "Pad" not in types(after)
    assert_same(both, after, 1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pads_before_pools_of_any_geometry(data):
    def pair(low: int, high: int) -> tuple[int, int]:
        return (data.draw(st.integers(low, high)), data.draw(st.integers(low, high)))

    kernel, stride = pair(1, 4), pair(1, 3)
    own = data.draw(st.integers(0, min(kernel) // 2))  # torch allows no more
    ceil = data.draw(st.booleans())
    if data.draw(st.booleans()):
        pool = g.MaxPool(kernel, stride, ((own, own),) * 2, pair(1, 3), ceil)
    else:
        pool = g.AvgPool(kernel, stride, ((own, own),) * 2, ceil, data.draw(st.booleans()))
    pad = g.Pad(((0, 0), pair(0, 2), pair(0, 2)))
    try:
        graph = chain((2, *pair(1, 6)), g.Activation("relu"), pad, pool)
    except ValueError:
        return  # the window does not fit
    assert_same(graph, canonize(graph), 1e-12)


def test_many_pads_take_time_in_proportion():
    pool = (g.Pad(((0, 0), (1, 1))), g.MaxPool((3,), (1,)))
    graph = chain((1, 4), g.Activation("relu"), *pool * 4000)
    started = time.process_time()
    assert "Pad" not in types(fold_pads(graph))
    assert time.process_time() - started < 10


# --- Batch norm --------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_batch_norm_after_a_convolution(groups, bias):
    graph = chain(IMAGE, conv(4, 8, 1, groups, bias), norm(8))
    after = fold_batch_norms(graph)
    assert types(after) == ["Conv"]
    assert_same(graph, after)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("padding", "shift"), [(0, True), (0, False), (1, False)])
def test_batch_norm_before_a_convolution(groups, bias, padding, shift):
    graph = chain(IMAGE, norm(shift=shift), conv(4, 8, padding, groups, bias))
    after = fold_batch_norms(graph)
    assert types(after) == ["Conv"]
    assert (after["1"].operator.bias is None) is (not bias and not shift)
    assert_same(graph, after)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_batch_norm_around_convolutions_of_any_rank(axes, groups, bias):
    shape, kernel = (4, 5, 4, 6)[: axes + 1], (2, 3, 1)[:axes]
    shift = numbers(6) if bias else None
    straight = g.Conv(numbers(6, 4 // groups, *kernel), shift, groups=groups)
    back = g.ConvTranspose(numbers(4, 6 // groups, *kernel), shift, (2,) * axes, groups=groups)
    for operators in ([straight, norm(6)], [norm(), straight], [back, norm(6)]):
        graph = chain(shape, *operators)
        after = fold_batch_norms(graph)
        assert len(after) == 2
        assert_same(graph, after)
    graph = chain(shape, norm(shift=False), back)  # the adjoint reads no position as often
    assert types(fold_batch_norms(graph)) == types(graph)


@pytest.mark.parametrize("shape", [(2, 6), (2, 4, 5, 3)])
def test_pads_of_signals_and_volumes_are_folded(shape):
    pad = g.Pad(((0, 0), *((1, 2),) * (len(shape) - 1)))
    kernel = (3,) * (len(shape) - 1)
    relu = g.Activation("relu")
    for operator in (g.Conv(numbers(3, 2, *kernel)), g.MaxPool(kernel, kernel)):
        graph = chain(shape, relu, pad, operator)
        after = fold_pads(graph)
        assert "Pad" not in types(after)
        assert_same(graph, after, 1e-12)


def test_batch_norm_around_a_dense_layer():
    dense = g.Dense(numbers(5, 4), numbers(5))
    for graph in (chain((4,), dense, norm(5)), chain((4,), norm(), dense)):
        after = fold_batch_norms(graph)
        assert types(after) == ["Dense"]
        assert_same(graph, after)


def test_batch_norms_in_a_row_are_merged():
    graph = chain(IMAGE, norm(), norm(seed=3), norm(seed=4), g.Activation("relu"))
    after = fold_batch_norms(graph)
    assert types(after) == ["BatchNorm", "Activation"]
    assert_same(graph, after)
    graph = chain(IMAGE, norm(), norm(seed=3), conv(), norm(seed=4), norm(seed=5))
    after = fold_batch_norms(graph)
    assert types(after) == ["Conv"]
    assert_same(graph, after)


def test_batch_norms_that_stay():
    dense = g.Dense(numbers(5, 4))
    for graph in (
        chain(IMAGE, norm(), conv(padding=1)),  # the shift does not reach the padding
        chain(IMAGE, g.Activation("relu"), norm(), g.Activation("relu")),
        chain(IMAGE, norm()),
        chain((5, 4), dense, norm(5)),  # its channels are the sequence, not the features
        chain((4, 4), norm(), dense),
    ):
        assert types(fold_batch_norms(graph)) == types(graph)


def test_batch_norm_after_a_layer_that_others_read_stays():
    graph = chain(IMAGE, conv(4, 4, 1), norm())
    graph.add("sum", g.Add(), ["0", "1"])
    assert types(fold_batch_norms(graph)) == ["Conv", "BatchNorm", "Add"]
    graph = chain(IMAGE, conv(), norm())
    graph.outputs = {"0": "0"}
    assert_same(graph, fold_batch_norms(graph), 0.0)


def test_batch_norm_before_several_layers():
    graph = chain(IMAGE, norm(), conv())
    graph.add("second", conv(bias=False), ["0"])
    graph.add("sum", g.Add(), ["1", "second"])
    after = fold_batch_norms(graph)
    assert types(after) == ["Conv", "Conv", "Add"]
    assert_same(graph, after)
