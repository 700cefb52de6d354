"""The operators of a Graph: shapes as torch and numpy infer them, and those that do not fit."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import convolutions, pools, torch_pools
from relprop import graph as g


@given(convolutions())
@settings(max_examples=80, deadline=None)
def test_convolution_shapes_are_those_of_torch(layer) -> None:
    operator, shape = layer
    x = torch.from_numpy(
        np.pad(np.zeros((1, *shape), np.float32), ((0, 0), (0, 0), *operator.padding))
    )
    weight = torch.from_numpy(operator.weight)
    convolve = getattr(torch.nn.functional, f"conv{len(operator.stride)}d")
    out = convolve(x, weight, None, operator.stride, 0, operator.dilation, operator.groups)
    assert operator.infer_shape(shape) == tuple(out.shape[1:])


@given(pools("max") | pools("average"))
@settings(max_examples=150, deadline=None)
def test_pool_shapes_are_those_of_torch(layer) -> None:
    operator, shape = layer
    if not torch_pools(operator, shape):
        return
    x, axes = torch.zeros(1, *shape), len(operator.kernel)
    where = (operator.kernel, operator.stride, tuple(before for before, _ in operator.padding))
    if isinstance(operator, g.MaxPool):
        pool = getattr(torch.nn.functional, f"max_pool{axes}d")
        out = pool(x, *where, operator.dilation, operator.ceil_mode)
    else:
        out = getattr(torch.nn.functional, f"avg_pool{axes}d")(x, *where, operator.ceil_mode)
    assert operator.infer_shape(shape) == tuple(out.shape[1:])


@given(data=st.data(), shape=st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_movement_shapes_are_those_of_numpy(data, shape) -> None:
    x = np.zeros(shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    stop = data.draw(st.integers(start + 1, shape[axis]))
    step = data.draw(st.integers(1, 3))
    cut = x[(slice(None),) * axis + (slice(start, stop, step),)]
    assert g.Slice(axis, start, stop, step).infer_shape(x.shape) == cut.shape
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    assert g.Permute(order).infer_shape(x.shape) == x.transpose(order).shape
    pads = tuple((i, i % 2) for i in range(len(shape)))
    assert g.Pad(pads).infer_shape(x.shape) == np.pad(x, pads).shape
    assert g.Concat(axis).infer_shape(x.shape, x.shape) == np.concatenate([x, x], axis).shape
    for keep in (False, True):
        assert g.Mean((axis,), keep).infer_shape(x.shape) == x.mean(axis, keepdims=keep).shape


WEIGHT = np.zeros((4, 3, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("operator", "shapes", "text"),
    [
        (
            g.Conv(WEIGHT),
            [(3, 8)],
            "Conv needs an input of shape (channels, height, width), not (3, 8)",
        ),
        (
            g.Conv(WEIGHT),
            [(4, 8, 8)],
            "weight (4, 3, 3, 3) with groups=1 does not fit 4 channels",
        ),
        (g.Conv(WEIGHT, groups=3), [(9, 8, 8)], "with groups=3 does not fit 9 channels"),
        (
            g.Conv(WEIGHT, np.zeros(3, np.float32)),
            [(3, 8, 8)],
            "bias must have shape (4,), not (3,)",
        ),
        (g.Conv(WEIGHT), [(3, 2, 8)], "a window of 3 does not fit an axis of 2 padded by (0, 0)"),
        (g.Conv(WEIGHT[0, 0, 0]), [(3, 8, 8)], "Conv over 0 spatial axes is not supported"),
        (g.Conv(WEIGHT, stride=(1,)), [(3, 8, 8)], "stride must have 2 entries, not 1"),
        (g.Dense(WEIGHT[0, 0]), [(4,)], "weight (3, 3) does not fit an input of shape (4,)"),
        (g.Dense(WEIGHT), [(3,)], "weight must have 2 axes, not 4"),
        (g.MaxPool((9, 1), (1, 1)), [(3, 8, 8)], "a window of 9 does not fit an axis of 8"),
        (
            g.MaxPool((9, 1), (1, 1), ceil_mode=True),
            [(3, 8, 8)],
            "a window of 9 does not fit an axis of 8",
        ),
        (
            g.AvgPool((4,), (2,), ((0, 1),), ceil_mode=True),
            [(3, 1)],
            "a window of 4 does not fit an axis of 1 padded by (0, 1)",
        ),
        (g.MaxPool((0, 1), (1, 1)), [(3, 8, 8)], "kernel=0, stride=1 and dilation=1 must be"),
        (g.Conv(WEIGHT, stride=(1, 0)), [(3, 8, 8)], "kernel=3, stride=0 and dilation=1 must be"),
        (
            g.Conv(WEIGHT, padding=((0, 0), (-1, 3))),
            [(3, 8, 8)],
            "padding (-1, 3) at least 0",
        ),
        (
            g.AvgPool((2, 2), (1, 1), divisor=0),
            [(3, 8, 8)],
            "divisor must be at least 1, not 0",
        ),
        (g.LocalResponseNorm(0), [(3, 8, 8)], "size must be at least 1, not 0"),
        (g.Softmax(1), [(3,)], "axis 1 does not fit an input of shape (3,)"),
        (g.Mean((1,)), [(3,)], "axes (1,) do not fit an input of shape (3,)"),
        (g.Mean((0, 0)), [(3,)], "axes (0, 0) do not fit"),
        (
            g.BatchNorm(WEIGHT[0, 0, 0], WEIGHT[0, 0, 0]),
            [(4, 2)],
            "do not fit an input of shape (4, 2)",
        ),
        (g.Add(), [(2,), (3,)], "shape mismatch"),
        (g.Concat(0), [(2, 3), (2, 4)], "cannot be joined along axis 0"),
        (g.Concat(0), [(3,), ()], "cannot be joined along axis 0"),
        (g.Slice(0, 2, 2), [(3,)], "slice 2:2:1 of axis 0 does not fit (3,)"),
        (g.Slice(1, 0, 2), [(3,)], "of axis 1 does not fit (3,)"),
        (g.Pad(((1, 1),)), [(3, 3)], "pads ((1, 1),) do not fit an input of shape (3, 3)"),
        (g.Pad(((-1, 1),)), [(3,)], "negative pads are slices"),
        (g.Reshape((2, 2)), [(3,)], "an input of shape (3,) cannot be reshaped to (2, 2)"),
        (g.Permute((0, 0)), [(2, 3)], "axes (0, 0) are no permutation"),
    ],
)
def test_shapes_that_do_not_fit_are_named(operator, shapes, text: str) -> None:
    graph = g.Graph()
    sources = [graph.add(f"in{i}", g.Input(shape)) for i, shape in enumerate(shapes)]
    with pytest.raises(ValueError, match=re.escape(text)) as error:
        graph.add("layer", operator, sources)
    assert str(error.value).startswith(f"node 'layer' ({type(operator).__name__}): ")
    assert "layer" not in graph.nodes


def test_every_operator_is_a_name_of_the_package() -> None:
    assert {operator.__name__ for operator in get_args(g.Operator)} <= set(g.__all__)
