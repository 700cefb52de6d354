"""Caffe networks: real ones against stored outputs and cv2.dnn, each layer against torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from caffe_files import CAFFENET, write_caffenet, write_weights
from fuzzing import fuzz
from networks import initialise
from real_data import real
from reference import forward
from relprop import Explainer
from relprop import graph as g
from relprop.benchmark.networks import caffenet
from relprop.canonizers import canonize
from relprop.cli import main
from relprop.errors import UnsupportedOperatorError
from relprop.frontends.caffe import convert

cv2 = pytest.importorskip("cv2")

# --- Real networks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name", "last"),
    [
        ("googlenet", "bvlc_googlenet", "loss3/classifier"),
        ("squeezenet", "squeezenet_v1.1", "pool10"),
    ],
)
def test_imagenet_networks(key: str, name: str, last: str):
    prototxt, caffemodel, stored = real(
        f"models/{name}_deploy.prototxt",
        f"models/{name}.caffemodel",
        "models/reference_forward.npz",
    )
    with np.load(stored) as reference:
        images = reference[f"{key}_input_bgr"][:12].astype(np.float32) - np.float32([104, 117, 123])
        logits = reference[f"{key}_logits"][:12]
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    graph = canonize(convert(prototxt, caffemodel))
    scores = Explainer(graph).forward(x)
    assert scores.shape == logits.shape
    np.testing.assert_allclose(scores, logits, rtol=0, atol=1e-4 * np.abs(logits).max())
    network = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    network.setInput(x[:2])
    theirs = network.forward(last).reshape(2, -1)
    np.testing.assert_allclose(scores[:2], theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_legacy_lenet_knows_its_digits():
    prototxt, caffemodel, digits = real(
        "models/lenet_mnist_deploy.prototxt",
        "models/lenet_mnist.caffemodel",
        "mnist/mnist_test.npz",
    )
    with np.load(digits) as mnist:
        x, labels = mnist["images"][:1000, None].astype(np.float32) / 256, mnist["labels"][:1000]
    scores = Explainer(canonize(convert(prototxt, caffemodel))).forward(x)
    assert (scores.argmax(1) == labels).mean() == pytest.approx(0.991)
    network = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    network.setInput(x[:9])
    np.testing.assert_allclose(scores[:9], network.forward("ip2"), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def caffenet_weights(tmp_path_factory) -> Iterator[tuple[torch.nn.Module, Path]]:
    module = initialise(caffenet())
    path = write_caffenet(module, tmp_path_factory.mktemp("caffenet") / "caffenet.caffemodel")
    yield module, path
    path.unlink()  # 244 MB


def test_caffenet(caffenet_weights):
    module, path = caffenet_weights
    graph = convert(CAFFENET, path)
    assert [node.type for node in graph].count("LocalResponseNorm") == 2
    x = np.random.default_rng(0).normal(0, 50, (1, 3, 227, 227)).astype(np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    scores = Explainer(canonize(graph)).forward(x)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


# --- Layer by layer ----------------------------------------------------------------------------

Write = Callable[..., tuple[Path, Path]]
IMAGE = (4, 7, 9)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a prototxt and its weights; a text without input gets one called "data"."""

    def files(text: str, shape: tuple[int, ...] = IMAGE, **blobs: Any) -> tuple[Path, Path]:
        if "input" not in text.lower():
            dims = " ".join(f"dim: {n}" for n in (5, *shape))
            text = f'input: "data" input_shape {{ {dims} }}\n{text}'
        (tmp_path / "net.prototxt").write_text(text)
        return tmp_path / "net.prototxt", write_weights(tmp_path / "net.caffemodel", blobs)

    return files


def layer(kind: str, settings: str = "", bottom: str = "data", name: str = "one") -> str:
    bottoms = " ".join(f'bottom: "{one}"' for one in bottom.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{name}" {settings} }}\n'


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))


def check(paths: tuple[Path, Path], wanted: Callable[[torch.Tensor], torch.Tensor]) -> g.Graph:
    graph = convert(*paths)
    x = numbers(2, *graph.input.shape, seed=1)
    result = forward(graph, x)[graph.output]
    np.testing.assert_allclose(result, wanted(tensor(x)).numpy(), rtol=1e-6, atol=1e-6)
    return graph


W, B = numbers(6, 2, 3, 2), numbers(6)
CONVOLUTIONS = {
    "kernel_h: 3 kernel_w: 2 group: 2": {"groups": 2},
    "kernel_size: 3 kernel_size: 2 group: 2 stride: 2": {"groups": 2, "stride": 2},
    "kernel_h: 3 kernel_w: 2 group: 2 pad: 1 stride_h: 1 stride_w: 3": {
        "groups": 2, "padding": 1, "stride": (1, 3)
    },
    "kernel_h: 3 kernel_w: 2 group: 2 pad_h: 2 pad_w: 1 dilation: 2": {
        "groups": 2, "padding": (2, 1), "dilation": 2
    },
}  # fmt: skip


@pytest.mark.parametrize("text", CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution(write: Write, text: str, bias: bool):
    flag = "" if bias else "bias_term: false"
    text_ = layer("Convolution", f"convolution_param {{ num_output: 6 {flag} {text} }}")
    blobs = [W, B] if bias else [W]
    check(
        write(text_, one=blobs),
        lambda x: F.conv2d(x, tensor(W), tensor(B) if bias else None, **CONVOLUTIONS[text]),
    )


def test_deconvolution(write: Write):
    weight = numbers(4, 3, 3, 2)
    text = "num_output: 6 kernel_h: 3 kernel_w: 2 group: 2 stride: 2 pad_h: 1 pad_w: 0 dilation: 2"
    check(
        write(layer("Deconvolution", f"convolution_param {{ {text} }}"), one=[weight, B]),
        lambda x: F.conv_transpose2d(
            x, tensor(weight), tensor(B), stride=2, padding=(1, 0), groups=2, dilation=2
        ),
    )


POOLINGS = {
    "kernel_size: 3 stride: 2": {"kernel_size": 3, "stride": 2},
    "kernel_size: 3 stride: 2 pad: 1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "kernel_size: 2 stride: 2 pad: 1": {"kernel_size": 2, "stride": 2, "padding": 1},
    "kernel_h: 3 kernel_w: 2 stride_h: 3 stride_w: 2 pad_h: 1 pad_w: 0": {
        "kernel_size": (3, 2), "stride": (3, 2), "padding": (1, 0)
    },
    "kernel_size: 2": {"kernel_size": 2, "stride": 1},
    "global_pooling: true": {"kernel_size": IMAGE[1:]},
}  # fmt: skip


@pytest.mark.parametrize("rounding", ["CEIL", "FLOOR"])
@pytest.mark.parametrize("text", POOLINGS)
@pytest.mark.parametrize("kind", ["MAX", "AVE"])
def test_pooling(write: Write, kind: str, text: str, rounding: str):
    pool = F.max_pool2d if kind == "MAX" else F.avg_pool2d
    written = f"pooling_param {{ pool: {kind} {text} round_mode: {rounding} }}"
    arguments = {"ceil_mode": rounding == "CEIL", **POOLINGS[text]}
    text = layer("Pooling", written, name="pool") + layer("Flatten", bottom="pool")
    check(write(text), lambda x: pool(x, **arguments).flatten(1))


def test_pools_whose_last_windows_are_empty_are_refused(write: Write):
    # Caffe makes 5 columns of 9, the last one of nothing but the smallest float.
    text = layer("Pooling", "pooling_param { kernel_size: 1 stride: 2 }")
    check(write(text), lambda x: x[..., ::2, ::2])
    with pytest.raises(UnsupportedOperatorError, match="beside the image"):
        convert(*write(text, (4, 8, 8)))


@pytest.mark.parametrize("kind", ["MAX", "AVE"])
def test_a_window_larger_than_the_image_is_cut(write: Write, kind: str):
    settings = f"pool: {kind} kernel_h: 9 kernel_w: 13 stride: 3 pad_w: 1"
    text = layer("Pooling", f"pooling_param {{ {settings} }}", name="pool")
    text += layer("Flatten", bottom="pool")
    check(write(text), lambda x: x.amax((2, 3)) if kind == "MAX" else x.sum((2, 3)) / (7 * 11))
    for other in (settings.replace("9", "10"), settings + " round_mode: FLOOR"):
        with pytest.raises(ValueError, match="does not fit an axis"):
            convert(*write(text.replace(settings, other)))


X = "data"
ELEMENTWISE = {
    layer("ReLU"): F.relu,
    layer("ReLU", "relu_param { negative_slope: 0.25 }"): lambda x: F.leaky_relu(x, 0.25),
    layer("ELU", "elu_param { alpha: 0.5 }"): lambda x: F.elu(x, 0.5),
    layer("Sigmoid"): torch.sigmoid,
    layer("TanH"): torch.tanh,
    layer("Swish"): F.silu,
    layer("BNLL"): F.softplus,
    layer("Clip", "clip_param { min: 0 max: 6 }"): F.relu6,
    layer("Clip", "clip_param { min: -1 max: 0.5 }"): lambda x: x.clamp(-1, 0.5),
    layer("Power", "power_param { scale: 0.5 shift: -2 }"): lambda x: 0.5 * x - 2,
    layer("Power", "power_param { scale: 3 }"): lambda x: 3 * x,
    layer("Power"): lambda x: x,
    layer("Power", "power_param { power: 3 shift: 0.5 }"): lambda x: (x + 0.5) ** 3,
    layer("Power", "power_param { power: -2 scale: 2 }"): lambda x: (2 * x) ** -2,
    layer("AbsVal"): torch.abs,
    layer("Exp"): torch.exp,
    layer("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }"): lambda x: 2 ** (1 + 0.5 * x),
    layer("Reduction", "reduction_param { axis: 2 }"): lambda x: x.sum((2, 3)),
    layer("Reduction", "reduction_param { operation: MEAN axis: 1 }"): (
        lambda x: x.mean((1, 2, 3))
    ),
    layer("Reduction", "reduction_param { operation: ASUM axis: -1 coeff: 0.5 }"): (
        lambda x: 0.5 * x.abs().sum(3)
    ),
    layer("Reduction", "reduction_param { operation: SUMSQ axis: -1 coeff: -2 }"): (
        lambda x: -2 * (x**2).sum(3)
    ),
    layer("Permute", "permute_param { order: 0 order: 2 order: 3 }"): (
        lambda x: x.permute(0, 2, 3, 1)
    ),
    layer("Pooling", "pooling_param { kernel_size: 3 stride: 1 }", name="p")
    + layer("Crop", "crop_param { offset: 1 offset: 2 }", "data p"): (lambda x: x[:, :, 1:6, 2:9]),
    layer("Split", name="s") + layer("Crop", "crop_param { axis: -1 }", "data s"): lambda x: x,
    layer("Sigmoid", name="s")
    + layer("Eltwise", "eltwise_param { coeff: 0.5 coeff: -1 coeff: 1 }", "data s s"): (
        lambda x: 0.5 * x
    ),
    layer("Sigmoid", name="s")
    + layer("TanH", name="t")
    + layer("Eltwise", "eltwise_param { operation: MAX }", "data s t"): (
        lambda x: torch.maximum(x, x.sigmoid())
    ),
    layer("Dropout"): lambda x: x,
    layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }"): (
        lambda x: F.local_response_norm(x, 3, 0.5, 0.6, 2.0)
    ),
    layer("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 k: 2 }"): (
        lambda x: x * (1 + 0.5 * F.avg_pool2d(x**2, 3, 1, 1)) ** -0.75
    ),
    layer("Softmax"): lambda x: x.softmax(1),
    layer("Softmax", "softmax_param { axis: -1 }"): lambda x: x.softmax(3),
    layer("Flatten"): lambda x: x.flatten(1),
    layer("Flatten", "flatten_param { axis: -2 }"): lambda x: x.flatten(2),
    layer("Reshape", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 9 } }"): (
        lambda x: x.reshape(2, 2, 14, 9)
    ),
    layer("Reshape", "reshape_param { shape { dim: -1 dim: 36 dim: 7 } }"): (
        lambda x: x.reshape(2, 36, 7)
    ),
    layer("Reshape", "reshape_param { shape { dim: 5 dim: -1 } }"): lambda x: x.flatten(1),
    layer("Reshape", "reshape_param { shape { dim: 1 dim: 63 } axis: 2 }"): (
        lambda x: x.reshape(2, 4, 1, 63)
    ),
    layer("Reshape", "reshape_param { shape { dim: 7 dim: 4 } axis: 1 num_axes: 2 }"): (
        lambda x: x.reshape(2, 7, 4, 9)
    ),
    layer("Reshape", "reshape_param { shape { dim: 1 } axis: -1 num_axes: 0 }"): (
        lambda x: x[..., None]
    ),
    layer("Concat", "", "data data"): lambda x: torch.cat([x, x], 1),
    layer("Concat", "concat_param { axis: -1 }", "data data"): lambda x: torch.cat([x, x], 3),
    layer("Concat", "concat_param { concat_dim: 2 }", "data data"): lambda x: torch.cat([x, x], 2),
    layer("Sigmoid", name="s") + layer("Eltwise", "", "data s"): lambda x: x + x.sigmoid(),
    layer("Eltwise", "eltwise_param { coeff: 1 coeff: 1 }", "data data"): lambda x: x + x,
    layer("Eltwise", "eltwise_param { operation: PROD }", "data data data"): lambda x: x**3,
    layer("Split", name="s") + layer("ReLU", bottom="s"): F.relu,
    layer("Pooling", "pooling_param { pool: AVE global_pooling: true }", name="p")
    + layer("Flatten", bottom="p", name="f")
    + layer("Sigmoid", bottom="f", name="s")
    + layer("Scale", "scale_param { axis: 0 }", "data s"): (
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()
    ),
}


@pytest.mark.parametrize("text", ELEMENTWISE)
def test_layers_without_weights(write: Write, text: str):
    check(write(text), ELEMENTWISE[text])


IN_OPENCV = [
    layer("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 }"),
    layer("LRN", "lrn_param { local_size: 5 alpha: 0.5 }"),
    layer("BNLL"),
    layer("ELU", "elu_param { alpha: 0.5 }"),
    layer("Power", "power_param { scale: 0.5 shift: -2 }"),
    layer("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    layer("Pooling", "pooling_param { kernel_size: 3 stride: 1 }", name="p")
    + layer("Crop", "crop_param { offset: 1 offset: 2 }", "data p"),
    layer("Sigmoid", name="s")
    + layer("Eltwise", "eltwise_param { coeff: 0.5 coeff: -1 }", "data s"),
    layer("Sigmoid", name="s") + layer("Eltwise", "eltwise_param { operation: MAX }", "data s"),
    layer("PReLU"),
    layer("PReLU", "prelu_param { channel_shared: true }"),
    layer("Deconvolution", "convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 stride: 2 }"),
    """layer { name: "cut" type: "Slice" bottom: "data" top: "a" top: "b"
      slice_param { slice_point: 1 } }"""
    + layer("Concat", "", "b a"),
]


@pytest.mark.parametrize("text", IN_OPENCV)
def test_layers_of_opencv(write: Write, text: str):
    slopes = numbers(1 if "shared" in text else 4)
    blobs = [numbers(4, 6, 3, 2), B] if "Deconvolution" in text else [slopes]
    prototxt, caffemodel = write(text, one=blobs)
    network = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    graph = convert(prototxt, caffemodel)
    x = numbers(5, *graph.input.shape, seed=1)
    network.setInput(x)
    wanted = network.forward()
    scores = Explainer(graph).forward(x)
    np.testing.assert_allclose(scores, wanted.reshape(scores.shape), rtol=1e-5, atol=1e-5)


def test_inner_product(write: Write):
    full, last = numbers(3, 252), numbers(3, 9)
    bias = numbers(3)
    check(
        write(layer("InnerProduct", "inner_product_param { num_output: 3 }"), one=[full, bias]),
        lambda x: F.linear(x.flatten(1), tensor(full), tensor(bias)),
    )
    text = "inner_product_param { num_output: 3 axis: -1 bias_term: false transpose: true }"
    check(
        write(layer("InnerProduct", text), one=[last.T]),
        lambda x: F.linear(x, tensor(last)),
    )
    legacy = full.reshape(1, 1, 3, 252), bias.reshape(1, 1, 1, 3)
    check(
        write(layer("InnerProduct", "inner_product_param { num_output: 3 }"), one=legacy),
        lambda x: F.linear(x.flatten(1), tensor(full), tensor(bias)),
    )


def test_prelu(write: Write):
    slopes = numbers(4)
    check(write(layer("PReLU"), one=[slopes]), lambda x: F.prelu(x, tensor(slopes)))
    text = layer("PReLU", "prelu_param { channel_shared: true filler { value: 0.1 } }")
    for slope in (np.float32(0.25), np.float32([0.25])):
        check(write(text, one=[slope]), lambda x: F.leaky_relu(x, 0.25))


def test_batch_norm_scale_and_bias(write: Write):
    mean, variance = numbers(4), numbers(4, seed=2) ** 2
    scale, shift = numbers(4, seed=3), numbers(4, seed=4)

    def norm(x: torch.Tensor, eps: float, factor: float) -> torch.Tensor:
        return F.batch_norm(x, tensor(mean) * factor, tensor(variance) * factor, eps=eps)

    check(write(layer("BatchNorm"), one=[mean, variance, [4.0]]), lambda x: norm(x, 1e-5, 0.25))
    text = layer("BatchNorm", "batch_norm_param { eps: 0.1 use_global_stats: true }", name="norm")
    text += layer("Scale", "scale_param { bias_term: true }", "norm")
    check(
        write(text, norm=[mean, variance, [0.0]], one=[scale, shift]),
        lambda x: norm(x, 0.1, 0) * tensor(scale)[:, None, None] + tensor(shift)[:, None, None],
    )
    check(write(layer("Scale"), one=[scale]), lambda x: x * tensor(scale)[:, None, None])
    check(write(layer("Bias"), one=[shift]), lambda x: x + tensor(shift)[:, None, None])


def test_slices(write: Write):
    def cut(settings: str, tops: int) -> str:
        names = " ".join(f'top: "{i}"' for i in range(tops))
        text = f'layer {{ name: "cut" type: "Slice" bottom: "data" {names} {settings} }}\n'
        return text + layer("Concat", "", " ".join(map(str, reversed(range(tops)))))

    check(write(cut("", 2)), lambda x: torch.cat([x[:, 2:], x[:, :2]], 1))
    points = "slice_param { slice_point: 1 slice_point: 3 }"
    check(write(cut(points, 3)), lambda x: torch.cat([x[:, 3:], x[:, 1:3], x[:, :1]], 1))
    with pytest.raises(ValueError, match="4 cannot be cut into 3 equal parts"):
        convert(*write(cut("", 3)))


def test_layers_in_place_and_what_only_trains(write: Write):
    text = """
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
      transform_param { mirror: true crop_size: 7 } data_param { source: "x" backend: LMDB } }
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } }
    layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" param { lr_mult: 2 }
      inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
    layer { name: "relu" type: "ReLU" bottom: "fc" top: "fc" }
    layer { name: "noise" type: "Noise" bottom: "fc" top: "fc" exclude { phase: TEST } }
    layer { name: "staged" type: "Noise" bottom: "fc" top: "fc" include { stage: "odd" } }
    layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }
    layer { name: "split" type: "Split" bottom: "fc" top: "logits" top: "other" }
    layer { name: "quiet" type: "Silence" bottom: "other" }
    layer { name: "hits" type: "Accuracy" bottom: "logits" bottom: "label" top: "hits" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "logits" bottom: "label" top: "loss" }
    # input: none
    """
    weight, bias = numbers(4, 12), numbers(4)
    paths = write(text, fc=[weight, bias], auxiliary=[numbers(3)])
    with pytest.raises(ValueError, match=r"does not tell the shape of 'data'.*example"):
        convert(*paths)
    graph = convert(*paths, shapes=(3, 2, 2))
    assert graph.output == "drop"
    x = numbers(2, 3, 2, 2)
    wanted = F.relu(F.linear(tensor(x).flatten(1), tensor(weight), tensor(bias)))
    np.testing.assert_allclose(forward(graph, x)["drop"], wanted, atol=1e-6)


def test_both_generations_of_layers_give_one_graph(tmp_path: Path):
    new = """
    input: "data" input_dim: 1 input_dim: 2 input_dim: 6 input_dim: 6
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 3 kernel_size: 3 } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
      pooling_param { kernel_size: 3 stride: 2 } }
    layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }
    layer { name: "tanh" type: "TanH" bottom: "flat" top: "tanh" }
    layer { name: "prob" type: "Softmax" bottom: "tanh" top: "prob" }
    """
    old = new.replace("layer {", "layers {")
    names = {"Convolution": "CONVOLUTION", "Pooling": "POOLING", "Flatten": "FLATTEN"}
    names |= {"ReLU": "RELU", "TanH": "TANH", "Softmax": "SOFTMAX"}
    for name, number in names.items():
        old = old.replace(f'"{name}"', number)
    blobs = {"conv": [numbers(3, 2, 3, 3), numbers(3)]}
    graphs = []
    for text in (new, old):
        (tmp_path / "net.prototxt").write_text(text)
        weights = write_weights(tmp_path / "w.caffemodel", blobs, legacy=text is old)
        graphs.append(convert(tmp_path / "net.prototxt", weights))
    assert str(graphs[0]) == str(graphs[1])
    x = numbers(1, 2, 6, 6)
    first, second = (forward(graph, x)[graph.output] for graph in graphs)
    np.testing.assert_array_equal(first, second)


def test_classes_by_global_pooling_are_a_vector(write: Write):
    text = layer("Pooling", "pooling_param { pool: AVE global_pooling: true }", name="pool")
    graph = convert(*write(text + layer("Softmax", bottom="pool")))
    assert graph[graph.output].shape == (4,)
    assert [node.type for node in canonize(graph)] == ["Input", "AdaptiveAvgPool", "Reshape"]


# --- What is refused ---------------------------------------------------------------------------


def test_all_unsupported_layers_are_listed(write: Write):
    text = layer("Convolution", "convolution_param { num_output: 6 kernel_size: 1 axis: 2 }")
    text += layer("Pooling", "pooling_param { kernel_size: 2 pool: STOCHASTIC }", name="two")
    text += layer("Power", "power_param { power: 0 }", name="three")
    text += layer("ROIPooling", "roi_pooling_param { pooled_w: 6 }", "three", "four")
    text += layer("ReLU", bottom="one two four", name="five")
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert(*write(text))
    lines = str(caught.value).splitlines()
    assert "net.prototxt" in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        "layer 'one' (Convolution): axis 2 holds the channels",
        "layer 'two' (Pooling): stochastic pooling",
        "layer 'three' (Power): an exponent of 0.0 is not supported",
        "layer 'four' (ROIPooling)",
    ]


def test_several_inputs_and_ends(write: Write):
    shape = "input_dim: 1 input_dim: 4 input_dim: 7 input_dim: 9"
    text = f"""
    input: "a" {shape} input: "b" {shape}
    layer {{ name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }}
    layer {{ name: "relu" type: "ReLU" bottom: "sum" top: "relu" }}
    layer {{ name: "mean" type: "Pooling" bottom: "sum" top: "mean"
      pooling_param {{ pool: AVE global_pooling: true }} }}
    """
    graph = convert(*write(text))
    assert [node.name for node in graph.inputs] == ["a", "b"]
    assert graph.outputs == {"relu": "relu", "mean": "mean/flatten"}
    x = {"a": numbers(2, *IMAGE), "b": numbers(2, *IMAGE, seed=1)}
    found = forward(graph, x)
    np.testing.assert_allclose(found["relu"], np.maximum(x["a"] + x["b"], 0), rtol=1e-6)
    np.testing.assert_allclose(found["mean/flatten"], (x["a"] + x["b"]).mean((2, 3)), atol=1e-6)


REFUSED = {
    layer("ReLU", "relu_param { negatve_slope: 1 }"): "no field named .*negatve_slope",
    layer("ReLU") + layer("ReLU"): "'one' is taken",
    layer("ReLU") + layer("ReLU", name="two").replace('top: "two"', 'top: "one"'): (
        "'one' was made before"
    ),
    layer("ReLU", bottom="date"): "reads 'date', which no layer",
    layer("ReLU", bottom="data data"): "needs one bottom, not 2",
    'layer { name: "one" type: "ReLU" bottom: "data" }': "needs a bottom and a top",
    "": "has no layers",
    'input: "data"': "has 1 inputs and shapes for 0",
    'input: "data" input_shape { dim: 1 dim: -3 }' + layer("ReLU"): r"all positive.*\(1, -3\)",
    'input: "data" input_dim: 9 input_dim: 0 input_dim: 2 ' + layer("ReLU"): (
        r"four values for each input, not \[9, 0, 2\]"
    ),
    'input: "data" input_dim: 9 input_dim: 0 input_dim: 2 input_dim: 2 ' + layer("ReLU"): (
        r"all positive.*\(9, 0, 2, 2\)"
    ),
    'input: "a" input: "b" input_dim: 1 input_dim: 3 input_dim: 2 input_dim: 2 '
    "input_dim: 5 input_dim: 3 input_dim: 2 input_dim: 2": r"batches of different sizes: \[1, 5\]",
    'input: "a" input: "a" input_shape { dim: 1 } input_shape { dim: 1 }': r"differ in their names",
    'input: "a" input: "b" input_dim: 1 input_dim: 3 input_dim: 2 input_dim: 2 '
    "input_dim: 1 input_dim: 3 input_dim: 2 input_dim: 2 " + layer("ReLU", bottom="b"): (
        "the output 'a' is the input 'a' itself"
    ),
    'input: "data" input_shape { dim: 1 dim: 65536 dim: 65536 }' + layer("ReLU"): "2147483647",
    layer("Pooling", "pooling_param { kernel_size: 9 }"): "window of 9 does not fit",
    layer("Pooling", "pooling_param { kernel_size: 2 stride: 0 }"): "stride must be between 1",
    layer("Pooling", "pooling_param { kernel_size: 2 pad: 2 }"): "must be smaller than the kernel",
    layer("Pooling", "pooling_param { kernel_size: 2 kernel_h: 2 }"): "at once",
    layer("Pooling"): "kernel_size must be between 1",
    layer("LRN", "lrn_param { local_size: 4 }"): "must be odd",
    layer("LRN", "lrn_param { alpha: nan }"): "alpha must be finite",
    layer("Concat", "concat_param { axis: 4 }"): "axis 4 does not fit",
    layer("Concat", "concat_param { axis: 0 }", "data data"): "batch axis",
    layer("Eltwise", "eltwise_param { coeff: 1 coeff: -1 }", "data data data"): "2 coefficients",
    layer("Eltwise", "eltwise_param { operation: PROD coeff: 1 coeff: 1 }", "data data"): (
        "coefficients for a product"
    ),
    layer("Eltwise", "eltwise_param { coeff: 1 coeff: nan }", "data data"): "coeff must be finite",
    layer("Power", "power_param { scale: inf }"): "scale must be finite",
    layer("Power", "power_param { power: 0 }"): "exponent of 0.0",
    layer("Power", "power_param { power: nan }"): "power must be finite",
    layer("Exp", "exp_param { base: -2 }"): "base must be positive, or -1 for e, not -2.0",
    layer("Exp", "exp_param { shift: inf }"): "shift must be finite",
    layer("Reduction"): "batch axis",
    layer("Reduction", "reduction_param { axis: 1 coeff: nan }"): "coeff must be finite",
    layer("Crop"): "needs two bottoms, not 1",
    layer("Crop", "crop_param { axis: 1 offset: 1 }", "data data"): "slice 1:5:1 of axis 0",
    layer("Crop", "crop_param { offset: 1 offset: 1 offset: 1 }", "data data"): "has 3 offsets",
    layer("Crop", "crop_param { axis: 0 }", "data data"): "batch axis",
    layer("Permute", "permute_param { order: 1 order: 0 }"): "batch axis",
    layer("Permute", "permute_param { order: 0 order: 0 }"): "no permutation of 4 axes",
    layer("Clip", "clip_param { min: 2 max: 1 }"): "between its bounds",
    layer("Reshape", "reshape_param { shape { dim: 10 dim: -1 } }"): "batch axis",
    layer("Reshape", "reshape_param { shape { dim: 0 dim: 5 dim: -1 } }"): "cannot be reshaped",
    layer("Convolution", "convolution_param { num_output: 6 kernel_size: 1 group: 0 }"): "0 groups",
    layer("Convolution", "convolution_param { num_output: 6 kernel_size: 1 }"): (
        "net.caffemodel has no weights for it"
    ),
    layer("BatchNorm", "batch_norm_param { use_global_stats: false }"): "statistics of the batch",
    'layers { name: "a" type: RELU bottom: "data" top: "a" }' + layer("ReLU"): "both generations",
    'layers { layer { name: "a" type: "relu" } bottom: "data" top: "a" }': 'no field named "layer"',
    'layers { name: "a" bottom: "data" top: "a" }': "layer 'a' has no type",
    "layer { name: 1 }": "cannot be read as a Caffe network",
    'layer { name: "a" ': "cannot be read as a Caffe network",
    "a {" * 10000: "cannot be read as a Caffe network",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_malformed_networks(write: Write, text: str):
    with pytest.raises(ValueError, match=REFUSED[text]) as caught:
        convert(*write(text))
    assert str(caught.value).count("net.prototxt") == 1


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ({"two": [W, B]}, "has no weights for it"),
        ({"one": [W]}, r"of shape \(6, 2, 3, 2\) and \(6,\), net.caffemodel has \(6, 2, 3, 2\)"),
        ({"one": [W.reshape(6, 2, 2, 3), B]}, "it needs weights of shape"),
        ({"one": [W, numbers(5)]}, "it needs weights of shape"),
        ({"one": [W * np.nan, B]}, "NaN or infinite"),
    ],
)
def test_weights_that_do_not_match(write: Write, blobs: Any, message: str):
    text = "convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 group: 2 }"
    with pytest.raises(ValueError, match=message):
        convert(*write(layer("Convolution", text), **blobs))


def test_files_that_are_no_caffe_files(write: Write, tmp_path: Path):
    prototxt, caffemodel = write(layer("Scale"), one=[numbers(4)])
    with pytest.raises(ValueError, match="the order is"):
        convert(caffemodel, prototxt)
    with pytest.raises(FileNotFoundError):
        convert(prototxt, tmp_path / "none.caffemodel")
    with pytest.raises(ValueError, match="is not a file"):
        convert(prototxt, tmp_path)
    whole = caffemodel.read_bytes()
    caffemodel.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"net\.caffemodel is truncated"):
        convert(prototxt, caffemodel)
    caffemodel.write_bytes(whole + whole)
    with pytest.raises(ValueError, match="two layers called 'one'"):
        convert(prototxt, caffemodel)
    caffemodel.write_bytes(b"\x89HDF\r\n")
    with pytest.raises(ValueError, match="HDF5"):
        convert(prototxt, caffemodel)


NETWORK = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 2 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 pad: 1 stride: 2 } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "lrn" type: "LRN" bottom: "conv" top: "lrn" lrn_param { local_size: 3 } }
layer { name: "pool" type: "Pooling" bottom: "lrn" top: "pool"
  pooling_param { pool: AVE kernel_size: 2 stride: 2 pad: 1 } }
layer { name: "power" type: "Power" bottom: "pool" top: "power"
  power_param { scale: 0.5 shift: 1 } }
layer { name: "crop" type: "Crop" bottom: "power" bottom: "pool" top: "crop"
  crop_param { offset: 0 } }
layer { name: "clip" type: "Clip" bottom: "crop" top: "clip" clip_param { min: -1 max: 2 } }
layer { name: "turn" type: "Permute" bottom: "clip" top: "turn"
  permute_param { order: 0 order: 1 } }
layer { name: "prelu" type: "PReLU" bottom: "turn" top: "prelu" }
layer { name: "sum" type: "Eltwise" bottom: "pool" bottom: "prelu" top: "sum"
  eltwise_param { coeff: 1 coeff: 0.5 } }
layer { name: "shape" type: "Reshape" bottom: "sum" top: "shape"
  reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "shape" top: "fc"
  inner_product_param { num_output: 2 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
BLOBS = {
    "conv": [numbers(3, 2, 3, 3), numbers(3)],
    "norm": [numbers(3), np.ones(3), np.ones(1)],
    "prelu": [numbers(3)],
    "fc": [numbers(2, 12), numbers(2)],
}
WORDS = ["0", "-1", "1", "7", "99999999999999999999", "1e39", "nan", "2147483647", "AVE", "true"]
WORDS += ['"data"', '"conv"', "{", "}", "axis: 0", "pad: 4294967295", "group: 3"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes replaced, cut out, doubled, or the end missing."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["replace", "double", "truncate", "word"]))
        if kind == "replace":
            data[start:stop] = draw(st.binary(max_size=12))
        elif kind == "double":
            data[start:start] = data[start:stop]
        elif kind == "word":
            data[start:stop] = b" " + draw(st.sampled_from(WORDS)).encode() + b" "
        else:
            del data[max(start, len(data) // 2) :]
    return bytes(data)


@st.composite
def reworded(draw: st.DrawFn, text: str) -> bytes:
    """Some words exchanged for others."""
    words = text.split()
    for _ in range(draw(st.integers(1, 5))):
        words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from([*WORDS, *words]))
    return " ".join(words).encode()


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("caffe")
    (folder / "net.prototxt").write_text(NETWORK)
    return folder / "net.prototxt", write_weights(folder / "net.caffemodel", BLOBS)


def attempt(prototxt: Path, caffemodel: Path) -> None:
    """Whatever a file says, the answer is a Graph that runs or one of these errors."""
    try:
        graph = canonize(convert(prototxt, caffemodel))
    except (ValueError, OSError):
        return
    if all(node.shape and np.prod(node.shape, dtype=float) < 1e5 for node in graph):
        forward(graph, numbers(1, *graph.input.shape))


def test_the_intact_files_load(intact):
    assert len(convert(*intact)) == 21


@fuzz(400)
@given(data=damaged(NETWORK.encode()) | reworded(NETWORK))
def test_damaged_prototxt(intact, tmp_path: Path, data: bytes):
    (tmp_path / "net.prototxt").write_bytes(data)
    with np.errstate(all="ignore"):
        attempt(tmp_path / "net.prototxt", intact[1])


@fuzz(400)
@given(data=st.data())
def test_damaged_caffemodel(intact, tmp_path: Path, data: st.DataObject):
    (tmp_path / "net.caffemodel").write_bytes(data.draw(damaged(intact[1].read_bytes())))
    with np.errstate(all="ignore"):
        attempt(intact[0], tmp_path / "net.caffemodel")


# --- The command line --------------------------------------------------------------------------


def relprop(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["relprop", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


OPTIONS = ("--channel-order", "bgr", "--mean", "104,117,123", "--std", 1, "--resize", 256)


def test_explain_a_caffe_network(intact, tmp_path: Path, monkeypatch, capsys):
    text = intact[0].read_text().replace("dim: 2", "dim: 3", 1)
    (tmp_path / "net.prototxt").write_text(text)
    blobs = {**BLOBS, "conv": [numbers(3, 3, 3, 3), numbers(3)]}
    weights = write_weights(tmp_path / "net.caffemodel", blobs)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).save(photo)
    monkeypatch.chdir(tmp_path)
    arguments = ("explain", "net.prototxt", photo, *OPTIONS, "--size", 6, "--json")
    assert relprop(monkeypatch, *arguments, "--weights", weights) == 0
    (explanation,) = json.loads(capsys.readouterr().out)["images"][0]["explanations"]
    assert explanation["closure_error"] < 1e-6
    assert relprop(monkeypatch, *arguments) == 3
    assert "a Caffe network is two files" in capsys.readouterr().err
    assert relprop(monkeypatch, *arguments, "--weights", "none.caffemodel") == 3
    assert "none.caffemodel" in capsys.readouterr().err


def test_explain_caffenet(caffenet_weights, tmp_path: Path, monkeypatch):
    _, weights = caffenet_weights
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((300, 400, 3), 90, np.uint8)).save(photo)
    out = tmp_path / "out"
    arguments = ("--weights", weights, *OPTIONS, "--size", 227, "-c", "alpha2_beta1", "-o", out)
    assert relprop(monkeypatch, "explain", CAFFENET, photo, *arguments) == 0
    assert {path.suffix for path in out.iterdir()} == {".png", ".npz"}
