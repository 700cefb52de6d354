"""Converted ONNX models compute what ONNX Runtime computes; bad ones are refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from fuzzing import fuzz
from onnx_models import build, integers, random, write
from reference import forward
from relprop.canonizers import canonize
from relprop.errors import UnsupportedOperatorError
from relprop.frontends.onnx import convert
from relprop.graph import Graph
from relprop.loading import load

W = random(4, 3, 3, 3)
B = random(4, seed=1)
VECTOR = ("N", 6)
SEQUENCE = ("N", 5, 6)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of two samples, one by one where the model takes only one."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    parts = np.split(x, len(x)) if source.shape[0] == 1 else [x]
    return np.concatenate([session.run(None, {source.name: part})[0] for part in parts])


def assert_same(
    model: onnx.ModelProto, folder: Path, sample: tuple[int, ...] | None = None
) -> Graph:
    path = write(model, folder)
    graph = convert(path, sample)
    x = random(2, *graph.input.shape, seed=7)
    expected = run(path, x)
    for version in (graph, canonize(graph)):
        if version.output in version.nodes and len(version) == len(graph):
            result = forward(version, x)[version.output]
            assert result.shape == expected.shape
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    return graph


def types(graph: Graph) -> list[str]:
    return [node.type for node in graph if node.type not in ("Input", "Constant")]


# --- Operators ---------------------------------------------------------------------------------

POOL = {"shape": ("N", 3, 9, 8)}
SIGNAL = {"shape": ("N", 3, 11)}
VOLUME = {"shape": ("N", 3, 4, 6, 5)}
OPERATORS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "conv": (("y = Conv<pads=[1,0,2,1], strides=[2,1]>(x, w, b)",), {"w": W, "b": B}),
    "conv without bias": (("y = Conv<dilations=[2,1], kernel_shape=[3,3]>(x, w)",), {"w": W}),
    "grouped conv": (("y = Conv<group=3>(x, w)",), {"w": random(6, 1, 3, 3)}),
    "conv same upper": (('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)',), {"w": W}),
    "conv same lower": (('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)',), {"w": W}),
    "conv valid": (('y = Conv<auto_pad="VALID">(x, w)',), {"w": W}),
    "conv transpose": (
        (
            "y = ConvTranspose<strides=[3,2], pads=[1,0,0,2], output_padding=[2,1], group=3,"
            " dilations=[1,2]>(x, w, b)",
        ),
        {"w": random(3, 2, 4, 3), "b": random(6)},
    ),
    "conv transpose same": (
        ('y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w)',),
        {"w": random(3, 2, 3, 3)},
    ),
    "conv transpose of a size": (
        ("y = ConvTranspose<strides=[2,2], output_shape=[16,15]>(x, w)",),
        {"w": random(3, 2, 3, 3)},
    ),
    "gemm": (("y = Gemm(x, w, b)",), {"w": random(6, 4), "b": B, "shape": VECTOR}),
    "gemm scaled": (
        ("y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)",),
        {"w": random(4, 6), "b": random(1, 4), "shape": VECTOR},
    ),
    "gemm, one bias": (
        ("y = Gemm(x, w, b)",), {"w": random(6, 4), "b": random(1), "shape": VECTOR},
    ),
    "matmul": (("y = MatMul(x, w)",), {"w": random(6, 4), "shape": SEQUENCE}),
    "matmul, matrix first": (("y = MatMul(w, x)",), {"w": random(1, 4, 5), "shape": SEQUENCE}),
    "matmul, a matrix for each channel": (("y = MatMul(w, x)",), {"w": random(3, 4, 8)}),
    "matmul by a matrix for each channel": (("y = MatMul(x, w)",), {"w": random(3, 8, 5)}),
    "matmul by a vector": (("y = MatMul(x, w)",), {"w": random(6), "shape": SEQUENCE}),
    "matmul, bias": (
        ("t = MatMul(x, w)", "y = Add(b, t)"), {"w": random(6, 4), "b": B, "shape": SEQUENCE},
    ),
    "max pool": (
        ("y = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1], ceil_mode=1>(x)",), POOL,
    ),
    "max pool larger than the image": (
        ("y = MaxPool<kernel_shape=[11,3], strides=[4,2], pads=[0,0,1,1], ceil_mode=1>(x)",), POOL,
    ),
    "average pool": (
        ("y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",), POOL,
    ),
    "average pool, padding counts": (
        ("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",), POOL,
    ),
    "average pool same": (
        ('y = AveragePool<kernel_shape=[2,2], auto_pad="SAME_UPPER", strides=[2,2]>(x)',), POOL,
    ),
    "average pool larger than the image": (
        ("y = AveragePool<kernel_shape=[4,11], strides=[3,3], pads=[2,1,0,1], ceil_mode=1>(x)",),
        POOL,
    ),
    "average pool larger than the image, padding counts": (
        (
            "y = AveragePool<kernel_shape=[4,11], strides=[3,3], pads=[2,1,0,1], ceil_mode=1,"
            " count_include_pad=1>(x)",
        ),
        POOL,
    ),
    "global average pool": (("y = GlobalAveragePool(x)",), {}),
    "global max pool": (("y = GlobalMaxPool(x)",), {}),
    "conv of a signal": (
        ("y = Conv<pads=[1,2], strides=[2], group=3>(x, w, b)",),
        {"w": random(6, 1, 3), "b": random(6), **SIGNAL},
    ),
    "conv of a signal, same": (
        ('y = Conv<auto_pad="SAME_LOWER", strides=[2]>(x, w)',),
        {"w": random(4, 3, 4), **SIGNAL},
    ),
    "conv of a volume": (
        ("y = Conv<pads=[1,0,2,0,1,1], strides=[1,2,1], dilations=[2,1,1]>(x, w)",),
        {"w": random(5, 3, 2, 3, 2), **VOLUME},
    ),
    "conv of a volume, same": (
        ('y = Conv<auto_pad="SAME_UPPER", strides=[2,1,3]>(x, w)',),
        {"w": random(5, 3, 2, 3, 4), **VOLUME},
    ),
    "conv transpose of a signal": (
        ("y = ConvTranspose<strides=[3], pads=[1,0], output_padding=[2]>(x, w, b)",),
        {"w": random(3, 6, 4), "b": random(6), **SIGNAL},
    ),
    "conv transpose of a volume": (
        ("y = ConvTranspose<strides=[2,1,2], output_shape=[8,6,8]>(x, w)",),
        {"w": random(3, 2, 3, 3, 2), **VOLUME},
    ),
    "max pool of a signal": (
        ("y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1], ceil_mode=1>(x)",), SIGNAL,
    ),
    "max pool of a volume": (
        ('y = MaxPool<kernel_shape=[2,3,1], auto_pad="SAME_UPPER", strides=[2,1,1]>(x)',), VOLUME,
    ),
    "average pool of a signal": (
        ("y = AveragePool<kernel_shape=[4], strides=[3], pads=[1,2]>(x)",), SIGNAL,
    ),
    "average pool of a volume": (
        ("y = AveragePool<kernel_shape=[2,2,3], pads=[0,1,1,1,0,1], count_include_pad=1>(x)",),
        VOLUME,
    ),
    "global average pool of a signal": (("y = GlobalAveragePool(x)",), SIGNAL),
    "global average pool of a volume": (("y = GlobalAveragePool(x)",), VOLUME),
    "global max pool of a volume": (("y = GlobalMaxPool(x)",), VOLUME),
    "batch norm of a signal": (
        ("y = BatchNormalization(x, s, b, m, v)",),
        {"s": random(3), "b": random(3), "m": random(3), "v": random(3) ** 2 + 0.1, **SIGNAL},
    ),
    "batch norm": (
        ("y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)",),
        {"s": random(3), "b": random(3), "m": random(3), "v": random(3) ** 2 + 0.1},
    ),
    "lrn": (("y = LRN<size=3, alpha=0.3, beta=0.6, bias=2.0>(x)",), {}),
    "relu": (("y = Relu(x)",), {}),
    "softplus": (("y = Softplus(x)",), {}),
    "hard sigmoid": (("y = HardSigmoid<alpha=0.16666667, beta=0.5>(x)",), {}),
    "sigmoid": (("y = Sigmoid(x)",), {}),
    "tanh": (("y = Tanh(x)",), {}),
    "leaky relu": (("y = LeakyRelu<alpha=0.2>(x)",), {}),
    "elu": (("y = Elu<alpha=0.7>(x)",), {}),
    "selu": (("y = Selu(x)",), {}),
    "selu, its own numbers": (("y = Selu<alpha=0.5, gamma=2.0>(x)",), {}),
    "celu": (("y = Celu<alpha=0.25>(x)",), {"opset": 12}),
    "abs": (("y = Abs(x)",), {}),
    "prelu": (("y = PRelu(x, s)",), {"s": random(3, 1, 1)}),
    "prelu, one slope": (("y = PRelu(x, s)",), {"s": random(1, 1, 1, 1)}),
    "prelu of a vector": (("y = PRelu(x, s)",), {"s": random(6), "shape": VECTOR}),
    "max": (("t = Relu(x)", "u = Neg(x)", "y = Max(t, u, x)"), {}),
    "max with numbers": (("y = Max(low, x, lower)",), {"low": 0.5 * B[:1], "lower": B[1:2]}),
    "min": (("t = Tanh(x)", "y = Min(x, t)"), {}),
    "min with a number": (("t = Tanh(x)", "y = Min(x, top, t)"), {"top": np.float32(0.25)}),
    "softmax": (("y = Softmax<axis=1>(x)",), {"shape": VECTOR}),
    "softmax inside": (
        ("s = Softmax<axis=2>(x)", "y = MatMul(s, w)"), {"w": random(6, 4), "shape": SEQUENCE},
    ),
    "matmul of branches": (("t = Transpose<perm=[0,1,3,2]>(x)", "y = MatMul(x, t)"), {}),
    "matmul of branches that are broadcast": (
        ("u = Unsqueeze<axes=[1]>(x)", "t = Transpose<perm=[0,2,1]>(x)", "v = Identity(t)",
         "r = Reshape(v, s)", "y = MatMul(u, r)"),
        {"s": integers(0, 2, 6, 5), "shape": ("N", 10, 6), "opset": 11},
    ),
    "sequence first": (
        ("t = Transpose<perm=[1,0,2]>(x)", "u = MatMul(t, w)", "r = Reshape(u, s)",
         "v = Transpose<perm=[1,0,2]>(r)", "q = Reshape(v, heads)", "y = Relu(q)"),
        {"w": random(6, 8), "s": integers(5, -1, 4), "heads": integers(-1, 2, 5, 4),
         "shape": SEQUENCE},
    ),
    "a mask that is added": (
        ("t = Add(x, m)", "s = Softmax<axis=2>(t)", "y = MatMul(s, w)"),
        {"m": np.triu(np.full((5, 6), -np.inf, np.float32), 1), "w": random(6, 4),
         "shape": SEQUENCE},
    ),
    "a mask that chooses": (
        ("t = Where(c, x, hidden)", "s = Softmax<axis=2>(t)", "y = MatMul(s, w)"),
        {"c": np.tri(5, 6, dtype=bool), "hidden": np.float32(-np.inf), "w": random(6, 4),
         "shape": SEQUENCE},
    ),
    "a choice": (
        ("t = Relu(x)", "u = Where(c, x, t)", "y = Where(c, five, u)"),
        {"c": np.tri(5, 6, dtype=bool)[None], "five": np.float32(5), "shape": SEQUENCE},
    ),
    "tile": (("y = Tile(x, n)",), {"n": integers(1, 2, 1), "shape": SEQUENCE}),
    "expand": (
        ("t = ReduceMean<axes=[2]>(x)", "y = Expand(t, s)"),
        {"s": integers(1, 1, 4), "shape": SEQUENCE, "opset": 13},
    ),
    "instance norm": (
        ("y = InstanceNormalization<epsilon=0.1>(x, s, b)",), {"s": random(3), "b": random(3)},
    ),
    "group norm in pieces": (
        ("g = Reshape(x, groups)", "n = InstanceNormalization(g, one, zero)",
         "r = Reshape(n, back)", "t = Mul(r, s)", "y = Add(b, t)"),
        {"groups": integers(0, 3, -1), "back": integers(0, 6, 4, 5), "one": np.ones(3, np.float32),
         "zero": np.zeros(3, np.float32), "s": random(6, 1, 1), "b": random(1, 6, 1, 1),
         "shape": ("N", 6, 4, 5)},
    ),
    "add": (("t = Relu(x)", "y = Add(t, x)"), {}),
    "add a constant": (("y = Add(x, c)",), {"c": random(3, 1, 1)}),
    "sum": (("t = Relu(x)", "y = Sum(t, x, c)"), {"c": random(1, 3, 8, 8)}),
    "sub": (("t = Relu(x)", "y = Sub(t, x)"), {}),
    "sub a constant": (("y = Sub(x, c)",), {"c": np.float32(2)}),
    "sub from a constant": (("y = Sub(c, x)",), {"c": random(8)}),
    "mul": (("t = Relu(x)", "y = Mul(t, x)"), {}),
    "mul by a constant": (("y = Mul(c, x)",), {"c": random(1, 3, 1, 1)}),
    "div by a constant": (("y = Div(x, c)",), {"c": np.float32([3])}),
    "neg": (("y = Neg(x)",), {}),
    "concat": (
        ("t = Relu(x)", "y = Concat<axis=-3>(t, c, x)"),
        {"c": random(1, 2, 8, 8), "shape": (1, 3, 8, 8)},
    ),
    "flatten": (("y = Flatten(x)",), {}),
    "reshape": (("y = Reshape(x, s)",), {"s": integers(0, -1, 4)}),
    "transpose": (("y = Transpose<perm=[0,3,1,2]>(x)",), {}),
    "identity": (("t = Identity(x)", "y = Relu(t)"), {}),
    "dropout": (("t = Dropout(x)", "y = Relu(t)"), {}),
    "cast": (("t = Cast<to=11>(x)", "u = Cast<to=1>(t)", "y = Relu(u)"), {}),
    "gather": (("y = Gather<axis=2>(x, i)",), {"i": np.int64(-2)}),
    "gather in any order": (("y = Gather<axis=2>(x, i)",), {"i": np.array([[5, -1], [0, 0]])}),
    "gather by steps": (("y = Gather<axis=3>(x, i)",), {"i": np.array([1, 3, 5, 2])}),
    "gather neighbours": (("y = Gather<axis=1>(x, i)",), {"i": np.array([[1, 2]])}),
}  # fmt: skip


@pytest.mark.parametrize("opset", [9, 13, 20])
@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name, opset, tmp_path):
    nodes, settings = OPERATORS[name]
    if opset < 11 and "ceil_mode" in nodes[0]:
        opset = 10
    graph = assert_same(build(*nodes, **{"opset": opset, **settings}), tmp_path)
    if name == "group norm in pieces":
        assert types(graph) == ["GroupNorm"]


@pytest.mark.parametrize(
    ("opset", "node", "tensors"),
    [
        (9, "y = Clip<min=0.0, max=6.0>(x)", {}),
        (11, "y = Clip(x, low, high)", {"low": np.float32(0), "high": np.float32(6)}),
        (13, "y = Clip(x, low)", {"low": np.float32(0)}),
        (9, "y = Clip<min=-0.5>(x)", {}),
        (12, "y = Clip(x, , high)", {"high": np.float32(0.25)}),
        (12, "y = Clip(x, low, high)", {"low": np.float32(-1), "high": np.float32(0.5)}),
        (9, "y = Slice<axes=[1,3], starts=[1,-7], ends=[9,-1]>(x)", {}),
        (
            11,
            "y = Slice(x, s, e, a, by)",
            {
                "s": integers(0, 1),
                "e": integers(2**63 - 1, 7),
                "a": integers(0, -1),
                "by": integers(1, 3),
            },
        ),
        (9, "y = Pad<pads=[0,1,0,2,0,0,1,-1], value=0.5>(x)", {}),
        (11, "y = Pad(x, p, v)", {"p": integers(0, 1, 0, 2, 0, 0, 1, -1), "v": np.float32(0.5)}),
        (18, "y = Pad(x, p, , a)", {"p": integers(1, 2), "a": integers(-1)}),
        (9, "y = ReduceMean<axes=[2,3]>(x)", {}),
        (9, "y = ReduceMax<axes=[3,1]>(x)", {}),
        (13, "y = ReduceMax<axes=[-1], keepdims=0>(x)", {}),
        (18, "y = ReduceMax(x, a)", {"a": integers(2)}),
        (13, "y = ReduceMean<axes=[-1], keepdims=0>(x)", {}),
        (18, "y = ReduceMean(x, a)", {"a": integers(1, 3)}),
        (13, "y = ReduceMin<axes=[2,3], keepdims=0>(x)", {}),
        (18, "y = ReduceMin(x, a)", {"a": integers(2)}),
        (9, "y = ReduceL1<axes=[1]>(x)", {}),
        (18, "y = ReduceL1<keepdims=0>(x, a)", {"a": integers(1, 3)}),
        (9, "y = ReduceSum<axes=[2,3]>(x)", {}),
        (13, "y = ReduceSum<keepdims=0>(x, a)", {"a": integers(-1)}),
        (11, "y = ReduceL2<axes=[1]>(x)", {}),
        (18, "y = ReduceSumSquare(x, a)", {"a": integers(1, 2)}),
        (13, "y = Exp(x)", {}),
        (13, "y = Reciprocal(x)", {}),
        (13, "y = Div(x, x)", {}),
        (13, "y = Pow(x, c)", {"c": np.float32(3)}),
        (13, "y = Pow(x, c)", {"c": np.int64(-2)}),
        (9, "y = Unsqueeze<axes=[1,5]>(x)", {}),
        (13, "y = Unsqueeze(x, a)", {"a": integers(-1)}),
        (14, "y = HardSwish(x)", {}),
        (12, 'y = Einsum<equation="nchw,cd->ndhw">(x, w)', {"w": random(3, 4)}),
        (13, 'y = Einsum<equation="cwd, b...c w, d ->b...">(w, x, v)',
         {"w": random(8, 8, 4), "v": B}),
        (20, "y = Gelu(x)", {}),
        (12, "y = Softmax<axis=2>(x)", {}),
        (17, "y = LayerNormalization(x, w)", {"w": random(8)}),
        (17, "y = LayerNormalization<axis=2, epsilon=0.1>(x, w, b)", {"w": random(8, 8),
                                                                        "b": random(8, 8)}),
        (18, "y = GroupNormalization<num_groups=3>(x, s, b)", {"s": random(3), "b": random(3)}),
        (21, "y = GroupNormalization<num_groups=1>(x, s, b)", {"s": random(3), "b": random(3)}),
        (23, "y = RMSNormalization<epsilon=0.1>(x, w)", {"w": random(8)}),
        (12, 'y = Einsum<equation="nchw,nchv->ncvw">(x, x)', {}),
        (23, "y = Attention(x, x, x)", {}),
        (23, "y = Attention<scale=0.5, is_causal=1>(x, x, x, m)",
         {"m": np.tri(8, 8, 2, dtype=bool)}),
        (23, "y = Attention(x, x, x, m)", {"m": random(3, 8, 8)}),
        (20, 'y = Gelu<approximate="tanh">(x)', {}),
    ],
)  # fmt: skip
def test_settings_by_opset(opset, node, tensors, tmp_path):
    assert_same(build(node, opset=opset, **tensors), tmp_path)


@pytest.mark.parametrize(("opset", "axes"), [(9, "<axes=[2,3]>(t)"), (13, "(t, a)"), (13, "(t)")])
def test_squeeze(opset, axes, tmp_path):
    tensors = {"a": integers(2, -1)} if "a)" in axes else {}
    assert_same(
        build("t = GlobalAveragePool(x)", f"y = Squeeze{axes}", opset=opset, **tensors), tmp_path
    )


@pytest.mark.parametrize(
    ("opset", "split", "tensors"),
    [
        (9, "<axis=1, split=[1,3,2]>(x)", {}),
        (13, "<axis=-3>(x, s)", {"s": integers(1, 3, 2)}),
        (11, "<axis=1>(x)", {}),
        (18, "<axis=2, num_outputs=3>(x)", {}),
    ],
)
def test_split(opset, split, tensors, tmp_path):
    nodes = [f"a, b, c = Split{split}", "t = Relu(a)", "y = Concat<axis=1>(c, t)"]
    assert_same(build(*nodes, opset=opset, shape=("N", 6, 6, 8), **tensors), tmp_path)


def resize(*settings: str, **tensors: Any) -> onnx.ModelProto:
    attributes = f"<{', '.join(settings)}>" if settings else ""
    node = f"y = Resize{attributes}(x, , {', '.join(tensors)})"
    return build(node, opset=13, shape=("N", 2, 5, 6), **tensors)


@pytest.mark.parametrize(
    "model",
    [
        build("y = Upsample(x, scales)", opset=9, scales=np.float32([1, 1, 2, 3])),
        build('y = Upsample<mode="linear">(x, s)', opset=9, s=np.float32([1, 1, 2, 1.5])),
        build("y = Resize(x, scales)", opset=10, scales=np.float32([1, 1, 2, 2])),
        resize(scales=np.float32([1, 1, 2, 3])),
        resize('coordinate_transformation_mode="asymmetric"', 'nearest_mode="floor"',
               scales=np.float32([1, 1, 0.7, 2.3])),
        resize('mode="linear"', scales=np.float32([1, 1, 2, 3])),
        resize('mode="linear"', 'coordinate_transformation_mode="pytorch_half_pixel"',
               scales=np.float32([1, 1, 1.7, 2.5])),
        build('y = Resize<mode="linear", coordinate_transformation_mode="align_corners">'
              '(x, , , sizes)', sizes=integers(1, 3, 11, 4), shape=(1, 3, 8, 8)),
        build('y = Resize<mode="linear", axes=[2,3]>(x, , , sizes)', opset=18,
              sizes=integers(11, 13)),
        build("y = Resize<axes=[-1]>(x, , s)", opset=18, s=np.float32([2])),
    ],
)  # fmt: skip
def test_resize(model, tmp_path):
    assert_same(model, tmp_path)


@pytest.mark.parametrize(
    ("settings", "scales", "text"),
    [
        (['mode="cubic"'], [1, 1, 2, 2], "mode 'cubic'"),
        (['nearest_mode="ceil"'], [1, 1, 2, 2], "nearest pixels by 'half_pixel' and 'ceil'"),
        (['coordinate_transformation_mode="tf_crop_and_resize"'], [1, 1, 2, 2], "coordinates of"),
        ([], [1, 2, 2, 2], "resizes channels"),
        ([], [2, 1, 2, 2], "batch axis"),
        ([], [1, 1, 0, 2], "positive"),
        ([], [1, 1, 1e8, 1], "too long|at most"),
        ([], [2, 2], "do not fit 4 axes"),
    ],
)
def test_resize_refused(settings, scales, text, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=text):
        convert(write(resize(*settings, scales=np.float32(scales)), tmp_path))


@pytest.mark.parametrize(
    ("node", "tensors", "text"),
    [
        ("y = Max(x, c)", {"c": random(3, 1, 1)}, "bounds of their own"),
        ("y = Max(x, c)", {"c": random(1, 1, 1, 1, 1)}, "batch axis"),
        ("y = Clip(x, c)", {"c": random(1, 1, 1)}, "min must be one number, not of shape"),
        ("y = PRelu(x, s)", {"s": random(1, 1, 1, 1, 1)}, "more than the channels"),
        ("y = CastLike(x, c)", {"c": np.int64(1)}, "a cast to INT64"),
        ("y = CastLike(x, c)", {"c": np.bool_(1)}, "a cast to BOOL"),
        ("a, y = Split<axis=1, num_outputs=3>(x)", {}, "not the number of its 2 outputs"),
        ("y = Clip(x, low, high)", {"low": B[:1] + 9, "high": B[:1]}, "between its bounds"),
        ("y = PRelu(x, s)", {"s": random(3, 8, 1)}, "more than the channels"),
        ("y = Transpose<perm=[1,0,2,3]>(x)", {}, "batch axis"),
        ('y = Einsum<equation="nchw,nchv,nchu->nuvw">(x, x, x)', {}, "more than two"),
        ('y = Einsum<equation="nchw,mchw->nm">(x, x)', {}, "batch axis"),
        ('y = Einsum<equation="nchw,nchv,h->ncvw">(x, x, w)', {"w": random(8)}, "and constants"),
        (
            "y = Where(c, x, hidden)",
            {"c": np.tri(8, 8, dtype=bool), "hidden": np.float32(-np.inf)},
            "infinite",
        ),
        ("y = InstanceNormalization(x, s, s)", {"s": random(4)}, "3 values each"),
        ("y = LayerNormalization<axis=0>(x, w)", {"w": random(8)}, "batch axis"),
        ("y = LayerNormalization(x, w)", {"w": random(7)}, "does not fit axes"),
        ('y = Einsum<equation="nchw,cd->cd">(x, w)', {"w": random(3, 4)}, "batch"),
        ("y = Gather<axis=1>(x, x)", {}, "computed from"),
    ],
)
def test_settings_refused(node, tensors, text, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=text):
        convert(write(build(node, **tensors), tmp_path))


@pytest.mark.parametrize("shape", [(4, 1), (1, 1, 4), (2,)])
def test_a_bias_that_is_none_of_gemm(shape, tmp_path):
    model = build("y = Gemm(x, w, b)", w=random(6, 4), b=random(*shape), shape=VECTOR)
    with pytest.raises(UnsupportedOperatorError, match="a bias of shape"):
        convert(write(model, tmp_path))


def test_a_factor_of_many_axes_is_part_of_no_pattern(tmp_path):
    numbers = {k: np.float32(v).reshape(1, 1, 1) for k, v in NUMBERS.items()}
    with pytest.raises(UnsupportedOperatorError, match="Erf at node 'e'"):
        convert(write(build(*PATTERNS["gelu"], shape=VECTOR, **numbers), tmp_path))


@pytest.mark.parametrize(
    ("axis", "types_"), [(1, ["Reshape", "Softmax", "Reshape"]), (3, ["Softmax"])]
)
def test_softmax_of_several_axes_before_opset_13(axis, types_, tmp_path):
    model = build(f"s = Softmax<axis={axis}>(x)", "y = Relu(s)", opset=12)
    assert types(assert_same(model, tmp_path)) == [*types_, "Activation"]
    with pytest.raises(UnsupportedOperatorError, match="batch"):
        convert(write(build("y = Softmax<axis=0>(x)", opset=12), tmp_path))


def test_log_softmax_inside_is_refused(tmp_path):
    with pytest.raises(UnsupportedOperatorError, match="only as the last operator"):
        convert(write(build("t = LogSoftmax<axis=1>(x)", "y = Relu(t)"), tmp_path))


ATTENTION = ("y = Attention<q_num_heads=4, kv_num_heads=2>(q, k, k)", {"shape": ("N", 5, 8)})


def test_attention_of_heads_in_groups(tmp_path):
    node, settings = ATTENTION
    model = build("q = MatMul(x, w)", "k = MatMul(x, v)", node, opset=23, w=random(8, 16),
                  v=random(8, 8), **settings)  # fmt: skip
    assert "Mul" in types(assert_same(model, tmp_path))


@pytest.mark.parametrize(
    ("node", "tensors", "text"),
    [
        ("y = Attention(x, x, x, x)", {}, "its mask depends on the input"),
        ("y = Attention<softcap=2.0>(x, x, x)", {}, "caps its products"),
        ("y = Attention(x, x, x, , p, p)", {"p": random(1, 3, 2, 8)}, "past keys"),
        ("y = Attention(x, x, x, m)", {"m": np.tri(8, 8, -1, dtype=bool)}, "a row with nothing"),
        ("y, k, v, z = Attention(x, x, x)", {}, "only its first result"),
    ],
)
def test_attention_refused(node, tensors, text, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=text):
        convert(write(build(node, opset=23, **tensors), tmp_path))


NORMS = {
    "layer norm": [
        "m = ReduceMean<axes=[-1]>(x)", "d = Sub(x, m)", "q = Pow(d, two)",
        "v = ReduceMean<axes=[-1]>(q)", "e = Add(v, epsilon)", "r = Sqrt(e)", "n = Div(d, r)",
        "s = Mul(n, w)", "y = Add(s, b)",
    ],
    "layer norm by products": [
        "m = ReduceMean<axes=[2]>(x)", "d = Sub(x, m)", "f = Sub(x, m)", "q = Mul(f, f)",
        "v = ReduceMean<axes=[-1]>(q)", "e = Add(epsilon, v)", "r = Sqrt(e)", "i = Reciprocal(r)",
        "n = Mul(i, d)", "s = Mul(w, n)", "y = Add(b, s)",
    ],
    "rms norm": [
        "q = Pow(x, two)", "v = ReduceMean<axes=[-1]>(q)", "e = Add(v, epsilon)", "r = Sqrt(e)",
        "i = Div(one, r)", "n = Mul(x, i)", "y = Mul(n, w)",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_norm_in_pieces(name, tmp_path):
    numbers = {"two": np.float32(2), "one": np.float32(1), "epsilon": np.float32(0.125)}
    model = build(
        *NORMS[name], shape=SEQUENCE, opset=13, w=random(6), b=random(6, seed=1), **numbers
    )
    graph = assert_same(model, tmp_path)
    assert types(graph) == ["LayerNorm"]
    norm = graph[graph.output].operator
    assert norm.centred is (name != "rms norm")
    assert (norm.epsilon, norm.bias is None) == (0.125, name == "rms norm")


def test_norm_in_pieces_over_channels(tmp_path):
    nodes = [node.replace("axes=[-1]", "axes=[1]") for node in NORMS["layer norm"][:-2]]
    numbers = {"two": np.float32(2), "epsilon": np.float32(0.125)}
    graph = assert_same(build(*nodes[:-1], "y = Div(d, r)", opset=13, **numbers), tmp_path)
    assert types(graph) == ["Permute", "LayerNorm", "Permute"]


# Not m - x: of that ONNX Runtime makes a layer norm of x.
@pytest.mark.parametrize(
    ("old", "new"),
    [("(q)", "(c)"), ("v = ReduceMean<axes=[-1]>", "v = ReduceMean<axes=[1]>")],
)
def test_what_is_no_layer_norm_may_be_an_rms_norm(old, new, tmp_path):
    nodes = [node.replace(old, new) for node in NORMS["layer norm"]]
    nodes.insert(3, "c = Pow(d, two)")
    numbers = {"two": np.float32(2), "epsilon": np.float32(0.125)}
    model = build(*nodes, shape=SEQUENCE, opset=13, w=random(6), b=random(6), **numbers)
    norms = [node.operator for node in assert_same(model, tmp_path) if node.type == "LayerNorm"]
    assert [norm.centred for norm in norms] == [old == "(q)"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("Sqrt(e)", "Sqrt(v)"), ("Div(d, r)", "Div(x, r)")],
)
def test_what_is_almost_a_norm_is_computed_as_it_is(old, new, tmp_path):
    nodes = [node.replace(old, new) for node in NORMS["layer norm"]]
    numbers = {"two": np.float32(2), "epsilon": np.float32(0.125)}
    model = build(*nodes, shape=SEQUENCE, opset=13, w=random(6), b=random(6), **numbers)
    found = types(assert_same(model, tmp_path))
    assert "LayerNorm" not in found
    assert found.count("Activation") == 3  # a power, its root and the reciprocal


def test_a_norm_by_fourth_powers_is_none(tmp_path):
    """Which ONNX Runtime 1.32 takes for a layer norm."""
    nodes = [*NORMS["layer norm"][:-3], "y = Div(d, r)"]
    numbers = {"two": np.float32(4), "epsilon": np.float32(0.125)}
    graph = convert(write(build(*nodes, shape=SEQUENCE, opset=13, **numbers), tmp_path))
    x = random(2, 5, 6)
    d = x - x.mean(-1, keepdims=True)
    expected = d / np.sqrt((d**4).mean(-1, keepdims=True) + 0.125)
    np.testing.assert_allclose(forward(graph, x)[graph.output], expected, rtol=1e-5)


def test_a_batch_of_one_is_followed_through_attention(tmp_path):
    nodes = ["t = Transpose<perm=[1,0,2]>(x)", "h = Reshape(t, heads)",
             "q = Transpose<perm=[1,0,2]>(h)", "k = Transpose<perm=[0,2,1]>(q)", "p = MatMul(q, k)",
             "a = Softmax<axis=2>(p)", "o = MatMul(a, q)", "u = Transpose<perm=[1,0,2]>(o)",
             "f = Reshape(u, flat)", "g = Gemm(f, w)", "r = Reshape(g, back)",
             "y = Transpose<perm=[1,0,2]>(r)"]  # fmt: skip
    shapes = {"heads": integers(5, 2, 3), "flat": integers(5, 6), "back": integers(5, 1, 6)}
    model = build(*nodes, shape=(1, 5, 6), opset=13, w=random(6, 6), **shapes)
    assert types(assert_same(model, tmp_path)).count("MatMul") == 2


def test_bias_and_matmul_are_one_layer_only_where_nothing_else_reads_the_product(tmp_path):
    nodes = ["t = MatMul(x, w)", "u = Add(t, b)", "y = Mul(u, t)"]
    graph = assert_same(build(*nodes, w=random(6, 4), b=B, shape=VECTOR), tmp_path)
    assert types(graph) == ["Dense", "Add", "Mul"]
    graph = assert_same(
        build(*nodes[:2], "y = Relu(u)", w=random(6, 4), b=B, shape=VECTOR), tmp_path
    )
    assert types(graph) == ["Dense", "Activation"]
    model = build(*nodes[:2], outputs=("t", "u"), w=random(6, 4), b=B, shape=VECTOR)
    graph = convert(write(model, tmp_path))
    assert types(graph) == ["Dense", "Add"]
    x = random(2, 5, 6)
    np.testing.assert_allclose(forward(graph, x)["t"], x @ random(6, 4), rtol=1e-5, atol=1e-6)


PATTERNS = {
    "silu": ["s = Sigmoid(x)", "y = Mul(x, s)"],
    "hard_swish": ["s = HardSigmoid<alpha=0.16666667>(x)", "y = Mul(s, x)"],
    "gelu": [
        "a = Div(x, root2)", "e = Erf(a)", "g = Add(e, one)", "m = Mul(x, g)", "y = Mul(m, half)",
    ],
    "gelu, halved first": [
        "h = Mul(half, x)", "a = Mul(x, rsqrt2)", "e = Erf(a)", "g = Add(one, e)", "y = Mul(h, g)",
    ],
    "gelu_tanh": [
        "c = Pow(x, three)", "w = Mul(c, cubic)", "s = Add(x, w)", "a = Mul(s, scale)",
        "t = Tanh(a)", "g = Add(t, one)", "h = Mul(x, half)", "y = Mul(h, g)",
    ],
}  # fmt: skip
NUMBERS = {
    "root2": 2**0.5, "rsqrt2": 0.5**0.5, "one": 1, "half": 0.5, "three": 3, "cubic": 0.044715,
    "scale": (2 / np.pi) ** 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_activation_in_pieces(name, tmp_path):
    model = build(*PATTERNS[name], **{k: np.float32(v) for k, v in NUMBERS.items()})
    graph = assert_same(model, tmp_path)
    (node,) = (node for node in graph if node.type != "Input")
    assert node.operator.function == name.partition(",")[0]


@pytest.mark.parametrize("name", PATTERNS)
def test_activation_in_pieces_of_a_multiple(name, tmp_path):
    nodes = ["u = Mul(x, third)", *(node.replace("x", "u") for node in PATTERNS[name])]
    numbers = {k: np.float32(v) for k, v in {**NUMBERS, "third": 1 / 3}.items()}
    assert types(assert_same(build(*nodes, **numbers), tmp_path)) == ["Mul", "Activation"]


def test_a_gate_of_something_else_stays_a_product(tmp_path):
    graph = assert_same(build("t = Relu(x)", "s = Sigmoid(t)", "y = Mul(x, s)"), tmp_path)
    assert types(graph) == ["Activation", "Activation", "Mul"]


@pytest.mark.parametrize("size", [3, 5])
def test_local_response_norm_in_pieces(size, tmp_path):
    graph = assert_same(
        build(
            "q = Mul(x, x)",
            "v = Unsqueeze(q, axis)",
            "p = Pad(v, pads)",
            f"m = AveragePool<kernel_shape=[{size},1,1]>(p)",
            "s = Squeeze(m, axis)",
            "a = Mul(s, alpha)",
            "b = Add(a, k)",
            "c = Pow(b, beta)",
            "y = Div(x, c)",
            axis=integers(1),
            pads=integers(0, 0, size // 2, 0, 0, 0, 0, (size - 1) // 2, 0, 0),
            alpha=np.float32(0.3),
            k=np.float32(2),
            beta=np.float32(0.75),
        ),
        tmp_path,
    )
    assert types(graph) == ["LocalResponseNorm"]


# --- Shapes, constants, the batch --------------------------------------------------------------

RESHAPED = [
    "s = Shape(x)", "n = Gather<axis=0>(s, zero)", "u = Unsqueeze(n, axis)",
    "t = Concat<axis=0>(u, rest)", "y = Reshape(x, t)",
]  # fmt: skip


@pytest.mark.parametrize("batch", ["N", 1])
def test_shape_arithmetic(batch, tmp_path):
    model = build(
        *RESHAPED, shape=(batch, 3, 8, 8), zero=np.int64(0), axis=integers(0), rest=integers(-1, 16)
    )
    graph = assert_same(model, tmp_path)
    assert types(graph) == ["Reshape"]
    assert graph[graph.output].shape == (12, 16)


def test_constants_are_folded(tmp_path):
    nodes = [
        "two = Constant<value_float=2.0>()",
        "t = Transpose<perm=[1,0]>(w)",
        "v = Mul(t, two)",
        "one = Constant<value_ints=[1,1]>()",
        "e = ConstantOfShape(one)",
        "u = Add(v, e)",
        "y = Gemm(x, u)",
    ]
    graph = assert_same(build(*nodes, w=random(4, 6), shape=VECTOR), tmp_path)
    assert types(graph) == ["Dense"]


@pytest.mark.parametrize(
    "nodes",
    [
        ["o = Expand(c, s)", "n = Size(o)", "r = Cast<to=1>(n)"],
        ["o = ConstantOfShape(s)", "p = Add(o, c)", "r = ReduceSum<keepdims=1>(p)"],
        ["o = ConstantOfShape(s)", "t = Shape(o)", "n = Gather(t, zero)", "r = Cast<to=1>(n)"],
        ["n = Gather(s, zero)", "m = Min(n, hundred)", "r = Cast<to=1>(m)"],
        ["n = Gather(s, zero)", "m = Equal(n, one)", "r = Cast<to=1>(m)"],
    ],
)
def test_constants_that_depend_on_the_size_of_the_batch(nodes, tmp_path):
    numbers = {"zero": np.int64(0), "one": np.int64(1), "hundred": np.int64(100)}
    model = build("s = Shape(x)", *nodes, "y = Mul(x, r)", c=np.float32(1), **numbers)
    with pytest.raises(UnsupportedOperatorError, match="depends on the size of the batch"):
        convert(write(model, tmp_path))


def test_casts_like_constants_and_data(tmp_path):
    nodes = ("t = CastLike(c, x)", "u = Mul(x, t)", "v = CastLike(u, h)", "y = CastLike(v, x)")
    graph = assert_same(build(*nodes, c=np.int32(3), h=np.float64(1)), tmp_path)
    assert types(graph) == ["Mul"]


def test_a_power_is_of_the_type_of_its_base(tmp_path):
    nodes = ("p = Pow(k, h)", "f = Cast<to=1>(p)", "y = Mul(x, f)")
    assert_same(build(*nodes, k=np.int64(8), h=np.float32(0.5)), tmp_path)


def test_the_mean_of_no_constants_is_refused(tmp_path):
    model = build("m = ReduceMean(c)", "y = Add(x, m)", c=np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="the mean of no values"):
        convert(write(model, tmp_path))


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("node", ["Concat<axis=1>(e, x)", "Mul(x, e)", "MatMul(e, x)"])
def test_a_constant_for_each_sample(node, batch, tmp_path):
    nodes = ["s = Shape(x)", "n = Slice(s, zero, one)", "t = Concat<axis=0>(n, rest)",
             "e = Expand(c, t)", f"y = {node}"]  # fmt: skip
    tensors = {"zero": integers(0), "one": integers(1), "rest": integers(6, 6), "c": random(6, 1)}
    assert_same(build(*nodes, shape=(batch, 6, 6), **tensors), tmp_path)


def test_an_einsum_does_not_add_up_what_is_repeated_for_each_sample(tmp_path):
    nodes = ["s = Shape(x)", "e = Expand(c, s)", 'y = Einsum<equation="nij,kij->nj">(x, e)']
    with pytest.raises(UnsupportedOperatorError, match="depends on the size of the batch"):
        convert(write(build(*nodes, shape=SEQUENCE, c=np.float32(1)), tmp_path))


def choice(then: onnx.ModelProto, otherwise: onnx.ModelProto, *names: str) -> onnx.NodeProto:
    """An If: its condition, its result."""
    for model in (then, otherwise):
        model.graph.output[0].CopyFrom(values(model.graph.output[0].name, "N", 6))
    branches = {"then_branch": then.graph, "else_branch": otherwise.graph}
    return helper.make_node("If", names[:1], names[1:], **branches)


def test_if_of_a_known_condition(tmp_path):
    model = build("t = GlobalAveragePool(x)", "s = Shape(t)", "l = Gather(s, three)",
                  "c = Equal(l, one)", three=np.int64(3), one=np.int64(1))  # fmt: skip
    then = build("ty = Squeeze<axes=[2,3]>(t)", outputs=("ty",), inputs=())
    otherwise = build("ey = Identity(t)", outputs=("ey",), inputs=())
    model.graph.node.append(choice(then, otherwise, "c", "y"))
    model.opset_import[0].version = 11
    graph = convert(write(model, tmp_path))
    assert graph[graph.output].shape == (3,)


def test_names_end_with_their_branch(tmp_path):
    def scaled(factor: float) -> onnx.ModelProto:
        nodes = ("t = Mul(x, w)", "z = Add(t, b)")
        return build(*nodes, outputs=("z",), inputs=(), w=np.float32(factor))

    model = build("y = Add(p, q)", shape=VECTOR, yes=np.bool_(True), b=random(6))
    model.graph.node.insert(0, choice(scaled(2), scaled(3), "yes", "p"))
    model.graph.node.insert(1, choice(scaled(5), scaled(7), "yes", "q"))
    assert types(assert_same(model, tmp_path)) == ["Mul", "Add"] * 2 + ["Add"]
    model.graph.node.append(helper.make_node("Relu", ["t"], ["u"]))
    with pytest.raises(ValueError, match="'t' is read and never made"):
        convert(write(model, tmp_path))
    model = build(shape=VECTOR, yes=np.bool_(True), b=random(6), w=np.float32(1))
    model.graph.node.append(choice(scaled(2), scaled(3), "yes", "y"))
    with pytest.raises(ValueError, match="made several times: w"):
        convert(write(model, tmp_path))


def test_if_of_the_size_of_the_batch(tmp_path):
    then, otherwise = (
        build(f"z = {kind}(x)", outputs=("z",), inputs=()) for kind in ("Neg", "Relu")
    )
    nodes = ("s = Shape(x)", "n = Gather(s, zero)", "c = Equal(n, one)")
    model = build(*nodes, shape=VECTOR, zero=np.int64(0), one=np.int64(1))
    model.graph.node.append(choice(then, otherwise, "c", "y"))
    with pytest.raises(UnsupportedOperatorError, match="depends on the size of the batch"):
        convert(write(model, tmp_path))


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        (["y = Reshape(x, s)"], {"s": integers(1, -1)}),
        (["y = Reshape(x, s)"], {"s": integers(-1, 8)}),
        (["y = Flatten<axis=2>(x)"], {}),
        (["y = Transpose<perm=[1,0,2,3]>(x)"], {}),
        (["y = ReduceMean<axes=[0]>(x)"], {}),
        (["y = ReduceMean(x)"], {}),
        (["y = ReduceMax<axes=[0, 1]>(x)"], {}),
        (["y = Concat<axis=0>(x, x)"], {}),
        (["y = Slice(x, s, e)"], {"s": integers(0), "e": integers(1)}),
        (["y = Squeeze(x, a)"], {"a": integers(0)}),
        (["t = GlobalAveragePool(x)", "u = Flatten(t)", "y = Add(x, u)"], {}),
        (["y = Pad(x, p)"], {"p": integers(1, 0, 0, 0, 0, 0, 0, 0)}),
        (["s = Shape(x)", "f = Cast<to=1>(s)", "m = ReduceMean(f)", "y = Mul(x, m)"], {}),
    ],
)
def test_the_batch_axis_is_left_alone(nodes, tensors, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match="batch"):
        convert(write(build(*nodes, **tensors), tmp_path))


def test_the_shape_of_a_sample(tmp_path):
    path = write(build("y = Relu(x)", shape=("N", 3, "height", "width")), tmp_path)
    assert convert(path, (3, 5, 7)).input.shape == (3, 5, 7)
    with pytest.raises(ValueError, match="example is needed"):
        convert(path)
    for wrong in ((1, 5, 7), (3, 5)):
        with pytest.raises(ValueError, match="takes samples of shape"):
            convert(path, wrong)
    assert convert(write(build("y = Relu(x)", shape=None), tmp_path), (4,)).input.shape == (4,)


# --- What is refused ---------------------------------------------------------------------------


def test_all_that_is_unsupported_is_listed(tmp_path):
    model = build(
        "a = Conv(x, w)", "unused = Cos(x)", "b = ThresholdedRelu(a)", "c = Sin(b)",
        "d = Add(c, x)", "y = Relu(d)", w=random(2, 3, 1, 1, 1, 1),
    )  # fmt: skip
    model.graph.node[2].name = "early"
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert(write(model, tmp_path))
    text = str(caught.value)
    assert text.startswith("model.onnx: ")
    assert "Conv at node 'a': convolution over 4 axes" in text
    assert "ThresholdedRelu at node 'early'" in text
    assert "Sin at node 'c'" in text
    assert "Cos" not in text  # the output does not need it


def test_other_domains(tmp_path):
    model = build("y = Relu(x)")
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(UnsupportedOperatorError, match=r"com\.microsoft\.Relu at node 'y'"):
        convert(write(model, tmp_path))


@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid<alpha=0.16666667>"])
def test_operators_of_other_domains_are_no_part_of_a_pattern(gate, tmp_path):
    model = build(f"s = {gate}(x)", "y = Mul(x, s)")
    model.graph.node[0].domain = "my"
    with pytest.raises(UnsupportedOperatorError, match=r"my\..*Sigmoid at node 's'"):
        convert(write(model, tmp_path))


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ("a, b = TopK(x, w)", "TopK at node 'a'$"),
        ("a, b = Split<axis=0>(x)", "Split at node 'a': it touches the batch axis"),
    ],
)
def test_the_reason_is_given_for_every_result(node, text, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=text):
        convert(write(build(node, "y = Relu(b)", w=W), tmp_path))


def test_what_a_loop_reads_around_it_is_no_constant(tmp_path):
    body = build("z = Relu(x)", inputs=("i",), outputs=("go", "z")).graph
    model = build(n=np.int64(3))
    model.graph.node.append(helper.make_node("Loop", ["n", ""], ["y"], body=body))
    with pytest.raises(UnsupportedOperatorError, match=r"Loop at node 'y'$"):
        convert(write(model, tmp_path))


# --- Several inputs and outputs ----------------------------------------------------------------


def values(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def with_inputs(model: onnx.ModelProto, *inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def test_inputs_and_outputs_have_the_files_names(tmp_path):
    nodes = ("s = Add(a, b)", "y = Relu(s)", "t = Tanh(b)", "z = Mul(t, w)", "unread = Sin(a)")
    model = build(*nodes, outputs=("z", "s", "y"), w=random(3))
    for batches in (("N", "N", "M"), (1, 1, 1), ("N", 1, None)):
        inputs = [values(name, n, 3) for name, n in zip("abc", batches)]
        graph = convert(write(with_inputs(model, *inputs), tmp_path))
        assert [node.name for node in graph.inputs] == ["a", "b", "c"]
        assert list(graph.outputs) == ["z", "s", "y"]
        x = {name: random(2, 3, seed=i) for i, name in enumerate("abc")}
        found = forward(graph, x)
        np.testing.assert_allclose(found[graph.outputs["s"]], x["a"] + x["b"], rtol=1e-6)
        wanted = np.tanh(x["b"]) * random(3)
        np.testing.assert_allclose(found[graph.outputs["z"]], wanted, rtol=1e-6)


def test_open_shapes_of_several_inputs(tmp_path):
    model = build("y = Add(a, b)")
    path = write(with_inputs(model, values("a", "N", "size"), values("b", "N", "size")), tmp_path)
    for shapes in ([(3,), (3,)], {"b": (3,), "a": (3,)}):
        assert [node.shape for node in convert(path, shapes).inputs] == [(3,), (3,)]
    arrays = (np.zeros((2, 3)), np.zeros((2, 3)))
    assert [node.shape for node in load(path, arrays).graph.inputs] == [(3,), (3,)]
    with pytest.raises(ValueError, match=r"leaves the shape of a sample open, a \[None\]"):
        convert(path)
    with pytest.raises(ValueError, match="a dictionary or a tuple of the 2 inputs a, b, not"):
        convert(path, (3,))
    with pytest.raises(ValueError, match="example must have the inputs a, b, not a, c"):
        convert(path, {"a": (3,), "c": (3,)})
    with pytest.raises(ValueError, match=r"the input 'a' takes samples of shape \[None\], not"):
        convert(path, [(3, 1), (3,)])


def test_what_stands_in_the_way_of_every_output_is_listed(tmp_path):
    nodes = ("a = Sin(x)", "y = Relu(a)", "z = Cos(x)", "c = Relu(w)", "unread = Tan(x)")
    model = build(*nodes, outputs=("y", "z"), w=W)
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert(write(model, tmp_path))
    assert "Sin at" in str(caught.value) and "Cos at" in str(caught.value)
    assert "Tan" not in str(caught.value)
    model = build("y = Relu(x)", "z = Add(w, w)", outputs=("y", "z"), w=W)
    with pytest.raises(ValueError, match="the output 'z' does not depend on any input"):
        convert(write(model, tmp_path))


def twice(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with its last initialiser once more."""
    model.graph.initializer.append(model.graph.initializer[-1])
    return model


def sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model with an initialiser that is told by its places."""
    model.graph.sparse_initializer.add(dims=[3]).values.CopyFrom(numpy_helper.from_array(B, "w"))
    return model


BIG = 2**40
REFUSED: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "nothing": (b"", "no ONNX file"),
    "text": (b"layer { name: 'conv' }", "no ONNX file"),
    "an input twice": (build("y = Add(a, a)", inputs=("a", "a")), "inputs of different names"),
    "an output twice": (build("y = Relu(x)", outputs=("y", "y")), "outputs of different names"),
    "no input": (build("y = Relu(x)", inputs=(), x=W), "inputs of different names"),
    "no output": (build("y = Relu(x)", outputs=()), "outputs of different names"),
    "input as output": (
        build("y = Relu(x)", outputs=("y", "x")), "the output 'x' is the input 'x' itself",
    ),
    "constant output": (build("y = Relu(w)", "z = Relu(x)", w=W), "on constants"),
    "fixed batch": (build("y = Relu(x)", shape=(8, 3, 8, 8)), "batches of 8"),
    "bytes": (build("y = Relu(x)", kind=onnx.TensorProto.UINT8), "ids or of bool, not UINT8"),
    "ids alone": (build("y = Relu(x)", kind=onnx.TensorProto.INT64), "from masks alone"),
    "old": (build("y = Relu(x)", opset=8), "one opset between 9 and"),
    "new": (build("y = Relu(x)", opset=9999), "one opset between 9 and"),
    "cycle": (build("a = Add(x, b)", "b = Relu(a)", "y = Relu(b)"), "'b' is read before"),
    "undefined": (build("y = Add(x, b)"), "'b' is read and never made"),
    "output not made": (build("z = Relu(x)"), "'y' is read and never made"),
    "made twice": (build("y = Relu(x)", "y = Tanh(x)"), "several times: y"),
    "initialiser twice": (twice(build("y = Add(x, w)", w=B)), "several times: w"),
    "sparse": (sparse(build("y = Add(x, w)")), "sparse initialisers are not read"),
    "wrong weight": (build("y = Conv(x, w)", w=random(4, 2, 3, 3)), "does not fit 3 channels"),
    "NaN": (build("y = Conv(x, w)", w=W * np.float32("nan")), "NaN"),
    "wrong type of attribute": (build("y = Conv<strides=1.5>(x, w)", w=W), "wrong type"),
    "no stride": (build("y = Conv<strides=[0,1]>(x, w)", w=W), "strides must be 2 integers"),
    "no groups": (build("y = Conv<group=0>(x, w)", w=W), "group must be"),
    "no window": (build("y = MaxPool(x)"), "no kernel_shape"),
    "gigantic input": (build("y = Relu(x)", shape=("N", BIG, BIG)), "too large"),
    "gigantic padding": (
        build("y = Pad(x, p)", p=integers(0, 0, 0, BIG, 0, 0, 0, BIG)), "a node has at most",
    ),
    "gigantic constant": (
        build("c = ConstantOfShape(s)", "y = Add(x, c)", s=integers(1, BIG)), "too large",
    ),
    "growing constant": (
        build(
            *(f"c{i + 1} = Concat<axis=0>(c{i}, c{i})" for i in range(40)), "y = Add(x, c40)", c0=W
        ),
        "too large",
    ),
    "too many constants": (
        build(
            "d0 = Expand(c, s)",
            *(f"d{i + 1} = Neg(d{i})" for i in range(40)),
            "y = Add(x, d40)", s=integers(2**22), c=np.float32(1),
        ),
        "far more memory",
    ),
    "random": (build("r = RandomNormal<shape=[8]>()", "y = Add(x, r)"), "on constants"),
    "training": (build("y = Dropout(x, r, t)", r=np.float32(0.5), t=np.bool_(True)), "training"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    model, text = REFUSED[name]
    with pytest.raises(ValueError, match=text) as caught:
        convert(write(model, tmp_path))
    assert "model.onnx" in str(caught.value)


def tensor(**settings: Any) -> onnx.TensorProto:
    """The weight W, with some fields changed."""
    made = numpy_helper.from_array(W, "w")
    for name, value in settings.items():
        made.ClearField(name)
        if isinstance(value, list):
            getattr(made, name).extend(value)
        else:
            setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (tensor(dims=[4, 3, 3, BIG]), "needs .* bytes, there are 432"),
        (tensor(dims=[4, -3, 3, 3]), r"shape \(4, -3, 3, 3\)"),
        (tensor(raw_data=b"abc"), "needs 432 bytes, there are 3"),
        (tensor(data_type=onnx.TensorProto.STRING), "type STRING"),
        (tensor(data_type=77), "type 77"),
    ],
)
def test_tensors_are_checked(weight, text, tmp_path):
    model = build("y = Conv(x, w)")
    model.graph.initializer.append(weight)
    with pytest.raises(ValueError, match=text):
        convert(write(model, tmp_path))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, "bfloat16"])
def test_tensors_of_other_types(dtype, tmp_path):
    weight = W.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        weight = (W.view(np.uint32) & 0xFFFF0000).view(np.float32)
        bits = (weight.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        stored = helper.make_tensor("w", onnx.TensorProto.BFLOAT16, W.shape, bits, raw=True)
    else:
        stored = numpy_helper.from_array(weight.astype(dtype), "w")
    model = build("y = Conv(x, w)")
    model.graph.initializer.append(stored)
    graph = convert(write(model, tmp_path))
    np.testing.assert_array_equal(graph[graph.output].operator.weight, weight)


def test_values_in_fields_of_their_own(tmp_path):
    model = build("y = Conv(x, w)")
    model.graph.initializer.append(
        helper.make_tensor("w", onnx.TensorProto.FLOAT, W.shape, W.ravel().tolist())
    )
    graph = convert(write(model, tmp_path))
    np.testing.assert_array_equal(graph[graph.output].operator.weight, W)


# --- External data -----------------------------------------------------------------------------


def external(location: str, **entries: Any) -> onnx.ModelProto:
    """A convolution whose weight lies in a file."""
    weight = tensor(data_location=onnx.TensorProto.EXTERNAL)
    weight.ClearField("raw_data")
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    model = build("y = Conv(x, w)")
    model.graph.initializer.append(weight)
    return model


def test_external_data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(bytes(16) + W.tobytes())
    model = external("data/w.bin", offset=16, length=W.nbytes)
    graph = assert_same(model, tmp_path)
    np.testing.assert_array_equal(graph[graph.output].operator.weight, W)


def test_external_data_stays_in_the_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(W.tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    for location in (
        str(secret),
        "../secret.bin",
        "link.bin",
        "up/secret.bin",
        "a/../../secret.bin",
    ):
        with pytest.raises(ValueError, match="outside the model's folder"):
            convert(write(external(location), folder))
    for location in ("", "a\0b"):
        with pytest.raises(ValueError, match="no file's name"):
            convert(write(external(location), folder))
    for location in ("missing.bin", "circle"):
        with pytest.raises(OSError, match=location):
            convert(write(external(location), folder))


def test_external_data_is_an_ordinary_file_of_the_right_size(tmp_path):
    (tmp_path / "w.bin").write_bytes(W.tobytes()[:-4])
    os.mkfifo(tmp_path / "pipe")
    for model, text in (
        (external("w.bin"), "which has 428"),
        (external("w.bin", offset=-8), "needs bytes -8"),
        (external("w.bin", offset="many"), "no number"),
        (external("w.bin", length=8), "there are 8"),
        (external("pipe"), "no ordinary file"),
        (external("."), "no ordinary file"),
    ):
        with pytest.raises(ValueError, match=text):
            convert(write(model, tmp_path))


def test_external_data_read_again_and_again(tmp_path):
    weight = np.zeros((4, 3, 1, 2**20), np.float32)
    (tmp_path / "w.bin").write_bytes(weight.tobytes())
    model = external("w.bin")
    model.graph.initializer[0].dims[:] = weight.shape
    nodes = []
    for i in range(60):
        copy = model.graph.initializer.add()
        copy.CopyFrom(model.graph.initializer[0])
        copy.name = f"w{i}"
        nodes.append(helper.make_node("Concat", [copy.name], [f"c{i}"], axis=0))
    model.graph.node.extend(nodes)
    with pytest.raises(ValueError, match="far more memory"):
        convert(write(model, tmp_path))


# --- Any bytes ---------------------------------------------------------------------------------

SOUND = build(
    "s = Shape(x)", "n = Gather<axis=0>(s, zero)", "u = Unsqueeze(n, axis)",
    "t = Concat<axis=0>(u, rest)", "c = Conv<pads=[1,1,1,1], group=1>(x, w, b)", "r = Relu(c)",
    "p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)", "f = Reshape(p, t)",
    "h, k = Split<axis=1>(f, parts)", "d = Concat<axis=1>(k, h)", "g = Gemm<transB=1>(d, v)",
    "y = Softmax(g)", zero=np.int64(0), axis=integers(0), rest=integers(64), parts=integers(30, 34),
    w=W, b=B, v=random(3, 64),
).SerializeToString()  # fmt: skip


def test_the_sound_model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(SOUND)
    assert convert(path)[convert(path).output].shape == (3,)


@fuzz(400)
@given(data=st.data())
def test_mutated_bytes(data, tmp_path):
    mutated = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "remove"]))
        if kind == "set":
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            mutated = mutated[: max(at, 1)]
        elif kind == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=12))
        else:
            mutated[at : at + data.draw(st.integers(1, 12))] = b""
        mutated = mutated or bytearray(b"\0")
    path = tmp_path / "model.onnx"
    path.write_bytes(mutated)
    with suppress(ValueError, OSError):
        convert(path)


@given(
    nodes=st.lists(
        st.tuples(
            st.sampled_from(
                ["Conv", "Gemm", "MatMul", "Add", "Mul", "Div", "Sub", "Concat", "Slice", "Split",
                 "Pad", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Gather", "If",
                 "Expand", "Range", "Where", "Cast", "Shape", "ReduceMean", "ReduceSum", "Clip",
                 "Softmax", "ConstantOfShape", "BatchNormalization", "LRN", "MaxPool", "Sigmoid",
                 "Erf", "Pow", "Max", "Min", "PRelu", "Einsum", "Tile", "Sqrt", "Reciprocal",
                 "LayerNormalization", "GroupNormalization", "InstanceNormalization",
                 "RMSNormalization", "Attention", "Shape", "Trilu"]
            ),
            st.lists(st.integers(0, 12), min_size=0, max_size=5),
            st.dictionaries(
                st.sampled_from(["axis", "axes", "pads", "strides", "kernel_shape", "perm", "to",
                                 "size", "group", "split", "starts", "ends", "value", "alpha",
                                 "equation"]),
                st.integers(-3, 3) | st.lists(st.integers(-3, 9), min_size=1, max_size=8)
                | st.floats(allow_nan=True) | st.integers(-(2**62), 2**62)
                | st.sampled_from(["nchw,cd->nd", "...a,a", "n...,...->n...", "aa,->", "->", "é"]),
                max_size=3,
            ),
        ),
        min_size=1,
        max_size=8,
    ),
    opset=st.sampled_from([9, 11, 13, 18, 20, 23]),
    batch=st.sampled_from(["N", 1]),
)  # fmt: skip
@fuzz(400)
def test_senseless_models(nodes, opset, batch, tmp_path):
    names = ["x", "w", "i", "v", "z"]
    model = build(
        "q = Relu(x)", opset=opset, shape=(batch, 3, 8, 8),
        w=W, i=integers(1, 2), v=B, z=np.int64(0),
    )  # fmt: skip
    for position, (kind, inputs, attributes) in enumerate(nodes):
        sources = [names[i % len(names)] for i in inputs]
        names.append(f"n{position}")
        model.graph.node.append(helper.make_node(kind, sources, names[-1:], **attributes))
    model.graph.output[0].name = names[-1]
    try:
        graph = convert(write(model, tmp_path))
    except (ValueError, OSError):
        return
    assert graph.output in graph.nodes


@pytest.mark.parametrize("kind", ["Sin", "Relu", "Mul"])
def test_long_models_take_time_in_proportion(kind, tmp_path):
    model = build("y = Relu(x)", c=np.float32(1))
    del model.graph.node[:]
    names = ["x", *(f"n{i}" for i in range(4999)), "y"]
    for before, after in pairwise(names):
        inputs = [before, "c"] if kind == "Mul" else [before]
        model.graph.node.append(helper.make_node(kind, inputs, [after], "the same name"))
    path = write(model, tmp_path)
    started = time.process_time()
    with suppress(UnsupportedOperatorError):
        convert(path)
    assert time.process_time() - started < 10


def test_neither_torch_nor_a_runtime_is_needed(tmp_path):
    path = write(build("y = Conv(x, w)", w=W), tmp_path)
    code = (
        "import sys, numpy, relprop\n"
        "explainer = relprop.Explainer(relprop.load(sys.argv[1]))\n"
        "explainer(numpy.ones((1, 3, 8, 8), 'f4'), target=numpy.ones((1, 4, 6, 6)))\n"
        "assert not {'torch', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
