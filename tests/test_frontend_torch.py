"""Converted Graphs compute what the torch module computes, and the module stays as it was."""

from __future__ import annotations

import copy
import logging.handlers
import math
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import relprop.torch
from networks import NETWORKS, initialise
from reference import forward
from relprop.canonizers import canonize
from relprop.errors import UnsupportedOperatorError
from relprop.frontends.torch import convert
from relprop.graph import Graph
from toy_networks import TOY_NETWORKS, Toy, toy


class Function(nn.Module):
    """A function as a module, with modules and parameters that it may use."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module, **tensors: Tensor) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.parts, **dict(self.named_buffers(recurse=False)))


def samples(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


def assert_same(module: nn.Module, x: Tensor, tolerance: float = 1e-10) -> Graph:
    """Forward of the Graph and of the module made float64 agree; returns the Graph."""
    graph = convert(module, x[:1])
    with torch.no_grad():
        expected = module.double()(x.double()).numpy()
    for version in (graph, canonize(graph)):
        result = forward(version, x.numpy())[version.output]
        assert result.shape == expected.shape
        scale = max(abs(expected).max(), 1e-30)
        assert abs(result - expected).max() <= tolerance * scale
    return graph


def types(graph: Graph) -> list[str]:
    return [node.type for node in graph if node.type != "Input"]


# --- Networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    factory, shape = NETWORKS[name]
    module = initialise(factory())
    # Static padding and option A shortcuts are made for one size; the others take a small one.
    small = shape if name in ("resnet20", "efficientnet_lite0", "vit") else (3, 48, 48)
    if name == "alexnet":
        small = (3, 64, 64)
    norms = any(isinstance(part, nn.BatchNorm2d | nn.LayerNorm) for part in module.modules())
    # Batch norm's scale and shift and attention's scale are rounded once, all else is exact.
    assert_same(module, samples(*small), 2e-6 if norms else 1e-10)


@pytest.mark.parametrize("name", TOY_NETWORKS)
def test_toy_network(name):
    module, x = toy(name)
    # What attention multiplies by is rounded to float32, as what batch norm does.
    rounded = "batch norm" in name or "attention" in name
    assert_same(module, x, 1e-6 if rounded else 1e-10)


def test_selu():
    graph = assert_same(nn.SELU().eval(), samples(*IMAGE), 1e-7)  # its scale is rounded to float32
    assert types(graph) == ["Activation", "Constant", "Mul"]


def test_node_names_are_module_paths():
    names = list(convert(initialise(NETWORKS["resnet18"][0]()), samples(3, 32, 32)).nodes)
    assert names[:5] == ["input", "conv1", "bn1", "relu", "maxpool"]
    assert {"layer1.0.conv1", "layer1.0.relu", "layer1.0.relu#2", "layer1.0.add"} < set(names)
    assert {"layer2.0.downsample.0", "flatten", "fc"} < {
        n.replace("view", "flatten") for n in names
    }


# --- Operators ---------------------------------------------------------------------------------

IMAGE = (4, 9, 7)
SIGNAL = (4, 11)
VOLUME = (4, 5, 6, 4)
VECTOR = (6,)
SEQUENCE = (5, 6)
TO_5 = torch.arange(5)


def beside_a_mask(x: Tensor) -> Tensor:
    """A constant of its own for each sample, which is small beside what masks hold."""
    mask = torch.full((x.shape[0], 1, 3), torch.finfo(torch.float32).min)
    order = torch.arange(x.shape[0])[:, None, None].expand(-1, 1, 3)
    return x + torch.cat([mask, order], 2)


def global_response_norm(x: Tensor) -> Tensor:
    """As ConvNeXt V2 has it."""
    length = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + x * (length / (length.mean(1, keepdim=True) + 1e-6))


def spelled(x: Tensor) -> Tensor:
    """GELU of a sum that ends a chain of them, by the error function."""
    y = x
    for _ in range(9):
        y = y + x.relu()
    return y * (torch.erf(y / math.sqrt(2)) + 1) / 2 * 3


def assigned(x: Tensor) -> Tensor:
    """The second and third channels exchanged for the last's, the last row for a number."""
    y = x.clone()
    y[:, 1:3] = x[:, 3:]
    y[:, :, 8:] = 0.5
    return y


def pooled(x: Tensor) -> Tensor:
    windows = x.reshape(-1, 2, 9, 7)
    pools = (
        F.max_pool2d(windows, 2, 1, 1, 2),
        F.avg_pool2d(windows, 3, 2, 1, True, False),
        F.adaptive_avg_pool2d(windows, (4, 1)),
        F.adaptive_max_pool2d(windows, (3, 1)),
        F.max_pool1d(windows.flatten(0, 1), 3),
    )
    return torch.cat([pool.reshape(x.shape[0], -1) for pool in pools], 1)


OPERATORS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "conv": (lambda: nn.Conv2d(4, 6, 3), IMAGE, ["Conv"]),
    "conv, all options": (
        lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, bias=False),
        IMAGE,
        ["Conv"],
    ),
    "conv same": (
        lambda: nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)),
        IMAGE,
        ["Conv"],
    ),
    "conv valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), IMAGE, ["Conv"]),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), IMAGE, ["Conv"]),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
        IMAGE,
        ["Conv"],
    ),
    "conv of a signal": (lambda: nn.Conv1d(4, 6, 3, 2, 1, 2, groups=2), SIGNAL, ["Conv"]),
    "conv of a signal, same": (lambda: nn.Conv1d(4, 6, 4, padding="same"), SIGNAL, ["Conv"]),
    "conv of a volume": (
        lambda: nn.Conv3d(4, 6, (3, 2, 1), (2, 1, 1), (1, 0, 2), (1, 2, 1), groups=2, bias=False),
        VOLUME,
        ["Conv"],
    ),
    "transposed conv": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, (1, 0), groups=2, dilation=2),
        IMAGE,
        ["ConvTranspose"],
    ),
    "transposed conv of a signal": (
        lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1),
        SIGNAL,
        ["ConvTranspose"],
    ),
    "transposed conv of a volume": (
        lambda: nn.ConvTranspose3d(4, 6, 3, (2, 1, 3), (1, 0, 1), (0, 0, 2), bias=False),
        VOLUME,
        ["ConvTranspose"],
    ),
    "any convolution": (
        lambda: Function(
            lambda x, w: torch.convolution(
                torch.convolution(x, w, None, [1], [1], [1], False, [0], 1),
                w,
                None,
                [2],
                [0],
                [1],
                True,
                [1],
                1,
            ),
            w=torch.linspace(-1, 1, 48).reshape(4, 4, 3),
        ),
        SIGNAL,
        ["Conv", "ConvTranspose"],
    ),
    "linear": (lambda: nn.Linear(6, 5), VECTOR, ["Dense"]),
    "linear on a sequence": (lambda: nn.Linear(6, 5, bias=False), (3, 6), ["Dense"]),
    "matmul": (
        lambda: Function(lambda x, w: x @ w, w=samples(3)[0].outer(torch.ones(6)).T),
        VECTOR,
        ["Dense"],
    ),
    "matmul, matrix first": (
        lambda: Function(lambda x, w: w @ x, w=samples(5)[0].outer(torch.ones(4))),
        (2, 4, 6),
        ["Permute", "Dense", "Permute"],
    ),
    "matmul by a vector": (
        lambda: Function(lambda x, w: x @ w, w=samples(6)[0]),
        (4, 6),
        ["Dense", "Reshape"],
    ),
    "batched matmul by one matrix": (
        lambda: Function(lambda x, w: x.bmm(w.expand(x.size(0), 6, 5)), w=samples(6, 5)[:1]),
        (4, 6),
        ["Dense"],
    ),
    "einsum": (
        lambda: Function(lambda x, w: torch.einsum("nchw,cd->nhwd", x, w), w=samples(4, 5)[0]),
        IMAGE,
        ["Permute", "Dense"],
    ),
    "einsum over several axes": (
        lambda: Function(
            lambda x, w: torch.einsum("chd,n...c,h->n...d", w, x, w[0, :, 0]), w=samples(4, 2, 5)[0]
        ),
        (3, 4),
        ["Dense"],
    ),
    "einsum by matrices of their own": (
        lambda: Function(lambda x, w: torch.einsum("hkw,nchw->nckh", w, x), w=samples(9, 5, 7)[0]),
        IMAGE,
        ["Constant", "Permute", "MatMul", "Permute"],
    ),
    "einsum that only moves": (
        lambda: Function(lambda x: torch.einsum("nchw->nwch", x)),
        IMAGE,
        ["Permute"],
    ),
    "functional linear": (
        lambda: Function(
            lambda x, w, b: F.linear(x, w * 2, b), w=samples(5, 6)[0], b=samples(5)[0]
        ),
        (4, 6),
        ["Dense"],
    ),
    "addmm": (
        lambda: Function(
            lambda x, b, w: torch.addmm(b, x, w, beta=2, alpha=0.5),
            b=samples(5)[0],
            w=samples(6, 5)[0],
        ),
        VECTOR,
        ["Dense"],
    ),
    "max pool": (lambda: nn.MaxPool2d(3, 2, 1, 1, ceil_mode=True), IMAGE, ["MaxPool"]),
    "max pool after a pad that it steps across": (
        lambda: nn.Sequential(
            nn.MaxPool2d((4, 7)), nn.ReLU(), nn.ZeroPad2d(1), nn.MaxPool2d(2, 1, dilation=(3, 1))
        ),
        IMAGE,
        ["MaxPool", "Activation", "Pad", "MaxPool"],
    ),
    "max pool, dilated": (lambda: nn.MaxPool2d((3, 2), 1, 0, (2, 3)), IMAGE, ["MaxPool"]),
    "max pool larger than the image": (
        lambda: nn.MaxPool2d((11, 2), (4, 1), ceil_mode=True),
        IMAGE,
        ["MaxPool"],
    ),
    "max pool with indices": (
        lambda: Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
        IMAGE,
        ["MaxPool"],
    ),
    "max pool of a signal": (lambda: nn.MaxPool1d(3, 2, 1, ceil_mode=True), SIGNAL, ["MaxPool"]),
    "max pool of a signal with indices": (
        lambda: Function(lambda x: F.max_pool1d(x, 2, return_indices=True)[0]),
        SIGNAL,
        ["MaxPool"],
    ),
    "max pool of a volume": (
        lambda: nn.MaxPool3d((2, 3, 1), (1, 2, 1), (0, 1, 0), (2, 1, 1)),
        VOLUME,
        ["MaxPool"],
    ),
    "average pool of a signal": (lambda: nn.AvgPool1d(3, 2, 1, True, False), SIGNAL, ["AvgPool"]),
    "average pool of a volume": (
        lambda: nn.AvgPool3d((2, 3, 2), padding=(0, 1, 1), divisor_override=5),
        VOLUME,
        ["AvgPool"],
    ),
    "adaptive average pool of a signal": (
        lambda: nn.AdaptiveAvgPool1d(4),
        SIGNAL,
        ["AdaptiveAvgPool"],
    ),
    "adaptive average pool of a volume": (
        lambda: nn.AdaptiveAvgPool3d((2, None, 1)),
        VOLUME,
        ["AdaptiveAvgPool"],
    ),
    "adaptive max pool of a signal": (lambda: nn.AdaptiveMaxPool1d(1), SIGNAL, ["MaxPool"]),
    "adaptive max pool of a volume": (
        lambda: nn.AdaptiveMaxPool3d((5, 2, 2)),
        VOLUME,
        ["MaxPool"],
    ),
    "average pool": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), IMAGE, ["AvgPool"]),
    "average pool larger than the image": (
        lambda: nn.AvgPool2d((12, 2), (4, 1), (1, 0), ceil_mode=True),
        IMAGE,
        ["AvgPool"],
    ),
    "average pool, divisor": (
        lambda: nn.AvgPool2d((2, 3), divisor_override=4),
        IMAGE,
        ["AvgPool"],
    ),
    "average pool, padding not counted": (
        lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        IMAGE,
        ["AvgPool"],
    ),
    "adaptive average pool": (lambda: nn.AdaptiveAvgPool2d((4, 3)), IMAGE, ["AdaptiveAvgPool"]),
    "adaptive average pool, one side": (
        lambda: nn.AdaptiveAvgPool2d((None, 3)),
        IMAGE,
        ["AdaptiveAvgPool"],
    ),
    "adaptive max pool": (lambda: nn.AdaptiveMaxPool2d((3, 1)), IMAGE, ["MaxPool"]),
    "mean": (lambda: Function(lambda x: x.mean((-1, 2))), IMAGE, ["Mean"]),
    "maximum over an axis": (
        lambda: Function(lambda x: x.max(2).values),
        SIGNAL,
        ["Permute", "Reshape", "MaxPool", "Reshape"],
    ),
    "maximum over channels": (
        lambda: Function(lambda x: torch.max(x, 1, keepdim=True)[0]),
        IMAGE,
        ["Permute", "Reshape", "MaxPool", "Reshape"],
    ),
    "maximum over axes": (
        lambda: Function(lambda x: x.amax((-1, 2))),
        VOLUME,
        ["Permute", "Reshape", "MaxPool", "Reshape"],
    ),
    "mean, axis kept": (lambda: Function(lambda x: x.mean(1, keepdim=True)), IMAGE, ["Mean"]),
    "local response norm": (
        lambda: nn.LocalResponseNorm(3, 0.1, 0.5, 2.0),
        IMAGE,
        ["LocalResponseNorm"],
    ),
    "local response norm, even": (
        lambda: nn.LocalResponseNorm(4, 0.1),
        IMAGE,
        ["LocalResponseNorm"],
    ),
    "local response norm of a volume": (
        lambda: nn.LocalResponseNorm(2, 0.1),
        VOLUME,
        ["LocalResponseNorm"],
    ),
    "relu": (lambda: nn.ReLU(inplace=True), IMAGE, ["Activation"]),
    "relu6": (nn.ReLU6, IMAGE, ["Activation"]),
    "hardtanh": (lambda: nn.Hardtanh(0, 6), IMAGE, ["Activation"]),
    "clamp": (lambda: Function(lambda x: x.clamp(0, 6)), IMAGE, ["Activation"]),
    "clamp at zero": (lambda: Function(lambda x: x.clamp(min=0)), IMAGE, ["Activation"]),
    "clamp at any bounds": (nn.Hardtanh, IMAGE, ["Clip"]),
    "clamp on one side": (
        lambda: Function(lambda x: x.clamp_max(0.5).clip(min=-0.25)),
        IMAGE,
        ["Clip", "Clip"],
    ),
    "clamp by tensors of one number": (
        lambda: Function(lambda x, b: x.clamp(b, b + 1), b=torch.tensor([0.25])),
        IMAGE,
        ["Clip"],
    ),
    "maximum with a number": (
        lambda: Function(lambda x, b: torch.minimum(b + 1, torch.maximum(x, b)), b=torch.zeros(1)),
        IMAGE,
        ["Activation", "Clip"],
    ),
    "maximum of branches": (
        lambda: Function(lambda x: torch.max(x, x.mean(1, keepdim=True))),
        IMAGE,
        ["Mean", "Maximum"],
    ),
    "minimum of branches": (
        lambda: Function(lambda x: torch.min(x, x.mean((2, 3), keepdim=True))),
        IMAGE,
        ["Mean", "Constant", "Mul", "Constant", "Mul", "Maximum", "Constant", "Mul"],
    ),
    "prelu": (nn.PReLU, IMAGE, ["PReLU"]),
    "prelu per channel": (
        lambda: Function(lambda x, s: F.prelu(x, s), s=samples(4)[0]),
        IMAGE,
        ["PReLU"],
    ),
    "prelu of a vector": (
        lambda: Function(lambda x, s: F.prelu(x, s), s=samples(6)[0]),
        VECTOR,
        ["PReLU"],
    ),
    "leaky relu": (lambda: nn.LeakyReLU(0.125), IMAGE, ["Activation"]),
    "elu": (lambda: nn.ELU(0.5), IMAGE, ["Activation"]),
    "elu, its scales": (
        lambda: Function(lambda x: torch.ops.aten.elu(x, 0.5, 3.0, 2.0)),
        IMAGE,
        ["Constant", "Mul", "Activation", "Constant", "Mul"],
    ),
    "celu": (lambda: nn.CELU(0.25), IMAGE, ["Constant", "Mul", "Activation", "Constant", "Mul"]),
    "log sigmoid": (nn.LogSigmoid, IMAGE, ["Constant", "Mul", "Activation", "Constant", "Mul"]),
    "absolute": (lambda: Function(torch.abs), IMAGE, ["Constant", "Mul", "Maximum"]),
    "minimum over axes": (lambda: Function(lambda x: x.amin((2, 3))), IMAGE, None),
    "minimum over an axis": (lambda: Function(lambda x: x.min(1, keepdim=True)[0]), IMAGE, None),
    "norm of order 1": (lambda: Function(lambda x: x.norm(1, (1, 3))), IMAGE, None),
    "largest size": (
        lambda: Function(lambda x: torch.linalg.vector_norm(x, math.inf, (2,), True)),
        IMAGE,
        None,
    ),
    "silu": (nn.SiLU, IMAGE, ["Activation"]),
    "gelu": (nn.GELU, IMAGE, ["Activation"]),
    "gelu tanh": (lambda: nn.GELU("tanh"), IMAGE, ["Activation"]),
    "sigmoid": (nn.Sigmoid, IMAGE, ["Activation"]),
    "tanh": (nn.Tanh, IMAGE, ["Activation"]),
    "hard sigmoid": (nn.Hardsigmoid, IMAGE, ["Activation"]),
    "hard swish": (nn.Hardswish, IMAGE, ["Activation"]),
    "softplus": (nn.Softplus, IMAGE, ["Activation"]),
    "add": (
        lambda: Function(lambda x: x.relu() + x.tanh()),
        IMAGE,
        ["Activation", "Activation", "Add"],
    ),
    "add in place": (lambda: Function(lambda x: x.relu().add_(x)), IMAGE, ["Activation", "Add"]),
    "add, alpha": (
        lambda: Function(lambda x: torch.add(x, x.relu(), alpha=0.5)),
        IMAGE,
        ["Activation", "Constant", "Mul", "Add"],
    ),
    "add scalar": (lambda: Function(lambda x: 1.5 + x), IMAGE, ["Constant", "Add"]),
    "add buffer": (
        lambda: Function(lambda x, b: x + b, b=samples(4, 1, 1)[:1]),
        IMAGE,
        ["Constant", "Add"],
    ),
    "subtract": (
        lambda: Function(lambda x: x - x.relu()),
        IMAGE,
        ["Activation", "Constant", "Mul", "Add"],
    ),
    "subtract scalar": (lambda: Function(lambda x: x - 0.5), IMAGE, ["Constant", "Add"]),
    "subtract from scalar": (
        lambda: Function(lambda x: 1 - x),
        IMAGE,
        ["Constant", "Constant", "Mul", "Add"],
    ),
    "negate": (lambda: Function(lambda x: -x), IMAGE, ["Constant", "Mul"]),
    "multiply": (lambda: Function(lambda x: x * x.sigmoid()), IMAGE, ["Activation", "Mul"]),
    "multiply by buffer": (
        lambda: Function(lambda x, b: b * x, b=samples(7)[0]),
        IMAGE,
        ["Constant", "Mul"],
    ),
    "divide": (lambda: Function(lambda x: x / 4), IMAGE, ["Constant", "Mul"]),
    "gate": (
        lambda: Function(lambda x: x * x.mean((2, 3)).sigmoid()[:, :, None, None]),
        IMAGE,
        ["Mean", "Activation", "Reshape", "Reshape", "Mul"],
    ),
    "concatenate": (
        lambda: Function(lambda x: torch.cat([x, x.relu()], -1)),
        IMAGE,
        ["Activation", "Concat"],
    ),
    "concatenate zeros": (
        lambda: Function(
            lambda x: torch.cat([x, torch.zeros_like(x), x.new_ones(x.size(0), 1, 9, 7)], 1)
        ),
        IMAGE,
        ["Constant", "Constant", "Concat"],
    ),
    "stack": (
        lambda: Function(lambda x: torch.stack([x, x.relu()], 2)),
        IMAGE,
        ["Activation", "Reshape", "Reshape", "Concat"],
    ),
    "slice": (lambda: Function(lambda x: x[:, 1:-1, ::2]), IMAGE, ["Slice", "Slice"]),
    "narrow": (lambda: Function(lambda x: x.narrow(2, 3, 4)), IMAGE, ["Slice"]),
    "select": (lambda: Function(lambda x: x[:, -1]), IMAGE, ["Slice", "Reshape"]),
    "chunk": (lambda: Function(lambda x: x.chunk(3, 1)[1]), IMAGE, ["Slice"]),
    "split": (lambda: Function(lambda x: x.split([1, 2, 6], 2)[1]), IMAGE, ["Slice"]),
    "unbind": (lambda: Function(lambda x: x.unbind(3)[2]), IMAGE, ["Slice", "Reshape"]),
    "pad": (lambda: Function(lambda x: F.pad(x, (1, 2, 0, 1), value=0.5)), IMAGE, ["Pad"]),
    "pad channels": (lambda: Function(lambda x: F.pad(x, (0, 0, 0, 0, 1, 2))), IMAGE, ["Pad"]),
    "pad by less than nothing": (
        lambda: nn.ZeroPad2d((-1, 2, 1, -3)),
        IMAGE,
        ["Slice", "Slice", "Pad"],
    ),
    "flatten": (nn.Flatten, IMAGE, ["Reshape"]),
    "view": (lambda: Function(lambda x: x.view(x.size(0), 2, -1)), IMAGE, ["Reshape"]),
    "unsqueeze": (lambda: Function(lambda x: x.unsqueeze(1)), IMAGE, ["Reshape"]),
    "squeeze": (
        lambda: Function(lambda x: x.mean((2, 3), keepdim=True).squeeze()),
        IMAGE,
        ["Mean", "Reshape"],
    ),
    "permute": (lambda: Function(lambda x: x.permute(0, 2, -1, 1)), IMAGE, ["Permute"]),
    "transpose": (lambda: Function(lambda x: x.transpose(1, -1)), IMAGE, ["Permute"]),
    "channel shuffle": (
        lambda: Function(lambda x: x.view(-1, 2, 2, 9, 7).transpose(1, 2).reshape(-1, 4, 9, 7)),
        IMAGE,
        ["Reshape", "Permute", "Reshape"],
    ),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.ReLU()), IMAGE, ["Activation"]),
    "casts": (
        lambda: Function(lambda x: x.clone().contiguous().to(x.dtype).type_as(x).relu()),
        IMAGE,
        ["Activation"],
    ),
    "expand": (
        lambda: Function(lambda x: x[:, :1].expand(-1, 6)),
        VECTOR,
        ["Slice", "Constant", "Mul"],
    ),
    "repeat": (lambda: Function(lambda x: x.repeat(1, 2)), VECTOR, ["Concat"]),
    "repeat each": (
        lambda: Function(lambda x: x.repeat_interleave(3, 2)),
        SIGNAL,
        ["Reshape", "Constant", "Mul", "Reshape"],
    ),
    "roll": (
        lambda: Function(lambda x: x.roll((2, -1), (1, 3))),
        IMAGE,
        ["Slice", "Slice", "Concat"] * 2,
    ),
    "layer norm": (lambda: nn.LayerNorm((5, 6)), SEQUENCE, ["LayerNorm"]),
    "layer norm without weights": (lambda: nn.LayerNorm(6, 0.125, False), SEQUENCE, ["LayerNorm"]),
    "layer norm of channels, spelled out": (
        lambda: Function(
            lambda x: (
                (x - x.mean(1, True))
                * torch.rsqrt((x - x.mean(1, True)).pow(2).mean(1, True) + 0.125)
            )
        ),
        IMAGE,
        ["Permute", "LayerNorm", "Permute"],
    ),
    "layer norm by a variance": (
        lambda: Function(
            lambda x: (x - x.mean(-1, True)) / (x.var(-1, False, True) + 0.125).sqrt()
        ),
        SEQUENCE,
        ["LayerNorm"],
    ),
    "rms norm": (lambda: nn.RMSNorm(6, 0.125), SEQUENCE, ["LayerNorm"]),
    "rms norm, spelled out": (
        lambda: Function(
            lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.125)).type_as(x),
            w=samples(6)[0],
        ),
        SEQUENCE,
        ["LayerNorm", "Constant", "Mul"],
    ),
    "group norm": (lambda: nn.GroupNorm(2, 4, 0.125), IMAGE, ["GroupNorm"]),
    "group norm without weights": (
        lambda: nn.GroupNorm(2, 4, affine=False),
        SIGNAL,
        ["GroupNorm"],
    ),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGE, ["GroupNorm"]),
    "instance norm by stored statistics": (
        lambda: nn.InstanceNorm2d(4, 0.0, track_running_stats=True),
        IMAGE,
        ["BatchNorm"],
    ),
    "standardised weights": (
        lambda: Function(
            lambda x, w: x @ ((w - w.mean(0, True)) / (w.var(0, False, True) + 0.1).sqrt()),
            w=samples(6, 3)[0],
        ),
        VECTOR,
        ["Dense"],
    ),
    "softmax": (
        lambda: Function(lambda x, last: last(x.softmax(1)), nn.Linear(6, 2)),
        SEQUENCE,
        ["Softmax", "Dense"],
    ),
    "product of branches": (
        lambda: Function(lambda x: x @ x.transpose(1, 2)),
        SEQUENCE,
        ["Permute", "MatMul"],
    ),
    "product of branches, batched": (
        lambda: Function(lambda x: torch.baddbmm(x, x.bmm(x.mT), x, beta=2, alpha=0.5)),
        SEQUENCE,
        ["Permute", "MatMul", "MatMul", "Constant", "Mul", "Constant", "Mul", "Add"],
    ),
    "product of branches that are broadcast": (
        lambda: Function(lambda x: x @ x[:, :1].mT),
        IMAGE,
        ["Slice", "Permute", "Constant", "Mul", "MatMul"],
    ),
    "einsum of branches": (
        lambda: Function(lambda x: torch.einsum("nqhd,nkhd->nhqk", x, x)),
        IMAGE,
        ["Permute", "Permute", "MatMul"],
    ),
    "attention": (
        lambda: Function(lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.5)),
        SEQUENCE,
        ["Constant", "Mul", "MatMul", "Softmax", "MatMul"],
    ),
    "attention under a mask": (
        lambda: Function(
            lambda x, m: F.scaled_dot_product_attention(x, x, x, m, scale=1.0),
            m=torch.ones(1, 9, 9).tril().bool(),
        ),
        IMAGE,
        ["MatMul", "Constant", "Add", "Softmax", "MatMul"],
    ),
    "attention under what depends on the input": (
        lambda: Function(
            lambda x: F.scaled_dot_product_attention(x, x, x, x @ x.mT, scale=1.0),
        ),
        SEQUENCE,
        ["Permute", "MatMul", "MatMul", "Add", "Softmax", "MatMul"],
    ),
    "attention of groups": (
        lambda: Function(
            lambda x: F.scaled_dot_product_attention(
                x, x[:, ::2], x[:, 1::2], is_causal=True, scale=0.5, enable_gqa=True
            )
        ),
        IMAGE,
        [
            "Slice",
            "Slice",
            "Constant",
            "Mul",
            "Reshape",
            "MatMul",
            "Reshape",
            "Constant",
            "Add",
            "Softmax",
            "Reshape",
            "MatMul",
            "Reshape",
        ],
    ),
    "fill": (
        lambda: Function(lambda x, m: x.masked_fill(m, 2.0), m=torch.ones(9, 7).triu().bool()),
        IMAGE,
        ["Constant", "Mul", "Constant", "Add"],
    ),
    "choice": (
        lambda: Function(lambda x, m: torch.where(m, x, x.relu()), m=torch.eye(5, 6).bool()),
        SEQUENCE,
        ["Activation", "Constant", "Mul", "Constant", "Mul", "Add"],
    ),
    "triangle": (lambda: Function(lambda x: x.tril(1)), SEQUENCE, ["Constant", "Mul"]),
    "sequence first": (
        lambda: Function(
            lambda x, p: (x.transpose(0, 1) + p).softmax(-1).mean(0),
            p=samples(1, 6)[0][:, None].expand(5, 1, 6),
        ),
        SEQUENCE,
        ["Constant", "Add", "Softmax", "Mean"],
    ),
    "windows": (
        lambda: Function(
            lambda x: torch.einsum(
                "wij,wkj->wik", x.reshape(-1, 3, 7), x.reshape(-1, 3, 7)
            ).reshape(-1, 12, 3, 3)
        ),
        IMAGE,
        ["Reshape", "Reshape", "MatMul"],
    ),
    "class token": (
        lambda: Function(
            lambda x, t: torch.cat([t.expand(x.shape[0], -1, -1), x], 1), t=samples(1, 6)[:1]
        ),
        SEQUENCE,
        ["Constant", "Concat"],
    ),
    "dead code": (lambda: Function(lambda x: (x.cumsum(1), x.relu())[1]), IMAGE, ["Activation"]),
    "unit length": (lambda: Function(lambda x: F.normalize(x, dim=-1)), SEQUENCE, ["LayerNorm"]),
    "unit length of pixels": (
        lambda: Function(F.normalize),
        IMAGE,
        ["Permute", "LayerNorm", "Permute"],
    ),
    "unit length by a quotient": (
        lambda: Function(lambda x: x / x.norm(dim=-1, keepdim=True)),
        SEQUENCE,
        ["LayerNorm"],
    ),
    "sum over axes": (
        lambda: Function(lambda x: x.sum((1, 3))),
        IMAGE,
        ["Mean", "Constant", "Mul"],
    ),
    "power": (lambda: Function(lambda x: x**3), IMAGE, ["Activation"]),
    "power by a constant": (
        lambda: Function(lambda x, e: x.exp() ** e, e=torch.tensor([-1.5])),
        IMAGE,
        ["Activation", "Activation"],
    ),
    "first power": (lambda: Function(lambda x: x.relu() ** 1), IMAGE, ["Activation", "Identity"]),
    "roots": (
        lambda: Function(lambda x: x.exp().sqrt() + x.square().rsqrt()),
        IMAGE,
        ["Activation"] * 4 + ["Add"],
    ),
    "reciprocal": (lambda: Function(lambda x: x.reciprocal()), IMAGE, ["Activation"]),
    "quotient": (
        lambda: Function(lambda x: x / (x + 9)),
        VECTOR,
        ["Constant", "Add", "Activation", "Mul"],
    ),
    "quotient of a constant": (
        lambda: Function(lambda x: 2 / x),
        IMAGE,
        ["Activation", "Constant", "Mul"],
    ),
    "length": (
        lambda: Function(lambda x: x.norm(dim=(1, 2))),
        IMAGE,
        ["Activation", "Mean", "Constant", "Mul", "Activation"],
    ),
    "unit length by a large bound": (
        lambda: Function(lambda x: F.normalize(x, dim=-1, eps=0.1)),
        VECTOR,
        [
            "Activation",
            "Mean",
            "Constant",
            "Mul",
            "Activation",
            "Clip",
            "Constant",
            "Mul",
            "Activation",
            "Mul",
        ],
    ),
    "response norm over halves of channels": (
        lambda: Function(lambda x: x / _response(x, (1, 2, 18, 7))),
        IMAGE,
        None,
    ),
    "response norm over rows": (
        lambda: Function(lambda x: x / _response(x, (1, 36, 7, 1))),
        IMAGE,
        None,
    ),
    "linear attention": (
        lambda: Function(
            lambda x: x.relu() @ (x.mT.relu() @ x) / (x.relu() @ x.mT.relu().sum(-1, True) + 0.5)
        ),
        SEQUENCE,
        None,
    ),
    "flip": (lambda: Function(lambda x: x.flip(1)), IMAGE, ["Slice"] * 4 + ["Concat"]),
    "running sums": (lambda: Function(lambda x: x.cumsum(-1)), IMAGE, ["Dense"]),
    "running sums of channels": (
        lambda: Function(lambda x: x.cumsum(1)),
        IMAGE,
        ["Permute", "Dense", "Permute"],
    ),
    "flip several": (lambda: Function(lambda x: x.flip((-1, 2))), IMAGE, None),
    "indices": (
        lambda: Function(lambda x: x[:, [3, 0, 2, 3, -1]]),
        IMAGE,
        ["Slice"] * 4 + ["Concat"],  # 3, then 0 and 2, then 3, then 3
    ),
    "indices by steps": (
        lambda: Function(lambda x, i: x[..., i], i=torch.tensor([6, 4, 0, 2, 4, 6])),
        IMAGE,
        ["Slice"] * 3 + ["Concat"],
    ),
    "indices of several axes": (
        lambda: Function(lambda x, i: x[:, :, i], i=torch.tensor([[0, 1], [2, 3], [4, 5]])),
        IMAGE,
        ["Slice", "Reshape"],
    ),
    "index select": (
        lambda: Function(
            lambda x, i: x.index_select(-1, i), i=torch.tensor([5, 5], dtype=torch.int32)
        ),
        IMAGE,
        ["Slice", "Slice", "Concat"],
    ),
    "windows of an image": (
        lambda: nn.Unfold((3, 2), dilation=(2, 1), padding=(0, 1), stride=(1, 3)),
        IMAGE,
        ["Pad"]
        + (["Slice", "Reshape"] * 3 + ["Concat"])
        + (["Slice", "Reshape"] * 2 + ["Concat"])
        + ["Permute", "Reshape"],
    ),
    "windows side by side": (
        lambda: nn.Unfold((4, 7), stride=(4, 7)),
        IMAGE,
        ["Slice", "Reshape", "Reshape", "Permute", "Reshape"],
    ),
    "windows of an axis": (
        lambda: Function(lambda x: x.unfold(-2, 3, 2).unfold(3, 7, 7)),
        IMAGE,
        ["Slice", "Reshape"] * 3 + ["Concat", "Permute", "Reshape", "Permute"],
    ),
    "windows of merged samples": (
        lambda: Function(lambda x: x.flatten(0, 1).unfold(1, 4, 2).view(-1, 4, 3, 7, 4)),
        (4, 9, 7),
        None,
    ),
    "windows put back": (
        lambda: Function(
            lambda x: F.fold(
                F.unfold(x, (3, 7), stride=(3, 7)).relu(), (9, 7), (3, 7), stride=(3, 7)
            )
        ),
        IMAGE,
        None,
    ),
    "global response norm": (lambda: Function(global_response_norm), IMAGE, None),
    "gelu by tanh": (
        lambda: Function(
            lambda x: (
                0.5
                * x
                * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))
            )
        ),
        IMAGE,
        ["Activation"],
    ),
    "gelu by tanh of a product": (
        lambda: Function(
            lambda x: x * 0.5 * (1 + torch.tanh(x * 0.7978845608028654 * (1 + 0.044715 * x * x)))
        ),
        IMAGE,
        ["Activation"],
    ),
    "gelu by erf of a sum": (
        lambda: Function(spelled),
        IMAGE,
        ["Activation", "Add"] * 9 + ["Activation", "Constant", "Mul"],
    ),
    "convolution of windows": (
        lambda: Function(
            lambda x, conv: conv(x.reshape(-1, 1, 11)).reshape(-1, 40), nn.Conv1d(1, 2, 3, 2)
        ),
        SIGNAL,
        ["Reshape", "Permute", "Conv", "Permute", "Reshape"],
    ),
    "pools of windows": (lambda: Function(pooled), IMAGE, None),
    "batch norm of rows": (
        lambda: Function(
            lambda x, norm: norm(x.flatten(0, 1)).view_as(x), initialise(nn.BatchNorm1d(6))
        ),
        SEQUENCE,
        ["Permute", "BatchNorm", "Permute"],
    ),
    "assignment": (
        lambda: Function(assigned),
        IMAGE,
        [
            *("Slice", "Slice", "Reshape", "Constant", "Mul", "Slice", "Slice", "Concat"),
            *("Slice", "Slice", "Constant", "Concat"),
        ],
    ),
    "nothing beside": (
        lambda: Function(
            lambda x, c, t: torch.cat(
                [c.expand(x.shape[0], -1, -1), t.expand(x.shape[0], -1, -1), x], 1
            ),
            c=samples(1, 6)[:1],
            t=torch.zeros(1, 0, 6),
        ),
        SEQUENCE,
        ["Constant", "Concat"],
    ),
    "mask by samples": (
        lambda: Function(
            lambda x, m: (
                (x @ x.mT)
                .masked_fill(
                    ~m.expand(x.shape[0], -1)[torch.arange(x.shape[0])[:, None, None], TO_5],
                    -torch.inf,
                )
                .softmax(-1)
                .mean(1)
            ),
            m=torch.tensor([[True, True, True, False, True]]),
        ),
        SEQUENCE,
        ["Permute", "MatMul", "Constant", "Add", "Softmax", "Mean"],
    ),
    "bias of windows": (
        lambda: Function(
            lambda x, b: (x.reshape(-1, 7, 9) + b.repeat(x.shape[0], 1, 1)).view_as(x),
            b=torch.arange(4.0 * 7 * 9).reshape(4, 7, 9),
        ),
        (4, 7, 9),
        ["Constant", "Add"],
    ),
    "a map of its own for each head": (
        lambda: Function(lambda x, w: x[:, :, None] @ w, w=samples(5, 6, 3)[0]),
        SEQUENCE,
        ["Reshape", "Constant", "MatMul"],
    ),
    "a question of its own for each head": (
        lambda: Function(
            lambda x, q: (q.repeat(x.shape[0], 1, 1) @ x.reshape(-1, 7, 9).mT).view(-1, 4, 2, 7),
            q=samples(4, 2, 9)[0],
        ),
        (4, 7, 9),
        ["Permute", "Constant", "MatMul"],
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    factory, shape, expected = OPERATORS[name]
    torch.manual_seed(0)
    # Weights that are computed here are rounded to float32.
    computed = ("weight norm", "standardised weights", "einsum over several axes")
    computed += ("unit length", "batch norm of rows")
    tolerance = 1e-6 if name.startswith(computed) else 1e-10
    graph = assert_same(factory().eval(), samples(*shape), tolerance)
    assert expected is None or types(graph) == expected


SPELLINGS = {
    "subtract": lambda x: torch.subtract(x, x.relu(), alpha=2),
    "subtract in place": lambda x: x.clone().sub_(x.relu()),
    "subtract from": lambda x: torch.rsub(x, x.relu(), alpha=0.5),
    "subtract from a tensor": lambda x: torch.ones(7) - x,
    "negative": lambda x: torch.negative(x),
    "positive": lambda x: +x.relu(),
    "divide": lambda x: torch.divide(x, torch.full((4, 1, 1), 2.0)),
    "divide truly": lambda x: torch.true_divide(x, 3),
    "divide in place": lambda x: x.clone().div_(3),
    "multiply": lambda x: torch.multiply(x, 3),
    "add a product": lambda x: torch.addcmul(x, x.relu(), x.sum(1, True), value=0.5),
    "add a scaled branch": lambda x: torch.addcmul(torch.ones(7), torch.full((4, 1, 1), 3.0), x),
    "add a product of constants": lambda x: torch.addcmul(
        x, torch.full((4, 1, 1), 3.0), torch.arange(7.0), value=-2
    ),
    "squeeze": lambda x: x.unsqueeze(2).squeeze(2),
    "squeeze several": lambda x: x.unsqueeze(-1).unsqueeze(1).squeeze((1, -1)),
    "squeeze nothing": lambda x: x.squeeze(1),
    "index by None": lambda x: x[:, :, None, ..., None],
    "uneven chunks": lambda x: torch.cat(x.chunk(2, 3)[::-1], 3),
    "unsafe chunks": lambda x: torch.cat(x.unsafe_chunk(2, 1)[::-1], 1),
    "split by size": lambda x: torch.cat(x.split(3, -1)[::-1], 3),
    "split by sizes": lambda x: torch.cat(x.unsafe_split_with_sizes([1, 3], 1)[::-1], 1),
    "split by indices": lambda x: torch.cat(torch.tensor_split(x, (1, 3), 1)[::-1], 1),
    "split along a named axis": lambda x: torch.cat(torch.hsplit(x, 2)[::-1], 1),
    "the whole batch": lambda x: x[: x.size(0)].narrow(0, 0, x.size(0)).relu(),
    "response norm": lambda x: x / _response(x, (1, 4, 9, 7)),
    "unbind": lambda x: torch.stack(x.unbind(-1)[::-1], 1),
    "unbind and sum": lambda x: sum(x.unbind(1)),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spelling(name):
    assert_same(Function(SPELLINGS[name]).eval(), samples(*IMAGE), 1e-6)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm2d, IMAGE),
        (nn.BatchNorm1d, (4,)),
        (nn.BatchNorm1d, SIGNAL),
        (nn.BatchNorm3d, VOLUME),
    ],
)
def test_batch_norm(norm, shape, affine):
    # Powers of two, so that float32 holds scale and shift exactly. Not every torch takes eps=0.
    module = norm(4, eps=1e-30, affine=affine).eval()
    module.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
    module.running_var.copy_(torch.tensor([4.0, 0.25, 1.0, 16.0]))
    if affine:
        module.weight.data.copy_(torch.tensor([1.0, 2.0, -0.5, 4.0]))
        module.bias.data.copy_(torch.tensor([0.0, 1.0, 0.25, -2.0]))
    assert types(assert_same(module, samples(*shape))) == ["BatchNorm"]


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_conv_of_any_geometry(data):
    axes = data.draw(st.sampled_from([1, 2, 3]))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return data.draw(st.tuples(*[st.integers(low, high)] * axes))

    groups = data.draw(st.sampled_from([1, 2, 4]))
    kernel, dilation = sizes(1, 3), sizes(1, 2)
    same = data.draw(st.booleans())
    padding: Any = "same" if same else sizes(0, 2)
    stride = (1,) * axes if same else sizes(1, 3)
    bias = data.draw(st.booleans())
    kind = getattr(nn, f"Conv{axes}d")
    module = kind(4, 4, kernel, stride, padding, dilation, groups, bias).eval()
    assert_same(module, samples(4, *(6, 7, 5)[:axes]))


def test_softmax_is_cut_at_the_end():
    x = samples(6)
    for last in (nn.Softmax(1), nn.LogSoftmax(-1)):
        graph = convert(nn.Sequential(nn.Linear(6, 5), last).eval(), x)
        assert types(graph) == ["Dense", "Softmax"]
        assert types(canonize(graph)) == ["Dense"]


def test_of_an_example_only_the_shape_matters():
    module = nn.Linear(6, 5).eval()
    for example in (samples(6).to("meta"), samples(6)[:1] * torch.nan, samples(6).half()):
        assert str(convert(module, example)) == str(convert(module, samples(6)))


def test_double_parameters_become_float32():
    module = nn.Linear(6, 5).double().eval()
    graph = convert(module, samples(6))
    assert graph["linear"].operator.weight.dtype == np.float32


def test_wrapped_modules():
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU()).eval()
    assert list(convert(nn.DataParallel(network), samples(*IMAGE)).nodes) == ["input", "0", "1"]
    scale = Function(
        lambda x, m, s: (x - m) / s, m=samples(4, 1, 1)[:1], s=torch.full((4, 1, 1), 0.5)
    )
    graph = assert_same(nn.Sequential(scale, network).eval(), samples(*IMAGE))
    assert types(graph) == ["Constant", "Add", "Constant", "Mul", "Conv", "Activation"]


# --- The user's module -------------------------------------------------------------------------


def fingerprint(module: nn.Module) -> Any:
    """Everything about a module that using it could change."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = {
        name: (tensor.numpy(force=True).tobytes(), tensor.data_ptr(), tensor._version,
               tensor.requires_grad, tensor.grad)
        for name, tensor in tensors.items()
    }  # fmt: skip
    parts = [
        (name, part.training, sorted(vars(part)),
         [list(value.items()) for key, value in vars(part).items() if "_hooks" in key])
        for name, part in module.named_modules()
    ]  # fmt: skip
    return state, parts


def test_module_is_unchanged():
    module = initialise(NETWORKS["resnet20"][0]())
    module.layer1[0].register_forward_hook(lambda *_: None)
    module.linear.weight.requires_grad_(False)
    before = fingerprint(module)
    convert(module, samples(3, 32, 32))
    assert fingerprint(module) == before


def test_module_is_unchanged_after_a_failure():
    module = Toy(lambda m, x: m.linear(x).cumprod(1), linear=nn.Linear(8, 4)).eval()
    before = fingerprint(module)
    with pytest.raises(UnsupportedOperatorError):
        convert(module, samples(5, 8))
    assert fingerprint(module) == before


class Lazy(nn.Module):
    """Makes what it needs when it first runs, and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)
        self.seen: list[Tensor] = []
        self.tables: dict[int, Tensor] = {}
        self.last: Any = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "attribute"):
            self.attribute = torch.arange(5.0)
            self.part = nn.ReLU()
            self.linear.attribute = torch.ones(5)
        self.tables[1] = self.attribute + 1
        self.last = self.part(self.linear(x)) + self.tables[1] * self.linear.attribute
        self.seen.append(self.last)
        return self.last


def test_what_a_module_makes_when_it_runs_is_made_again():
    module = Lazy()
    before = fingerprint(module)
    graph = convert(module, samples(6))
    assert fingerprint(module) == before
    assert (module.seen, module.tables, module.last) == ([], {}, None)
    result = module(samples(6)).detach().numpy()
    np.testing.assert_allclose(forward(graph, samples(6).numpy())[graph.output], result, rtol=1e-6)
    assert type(module.attribute) is Tensor


def test_a_buffer_made_in_a_run_is_read_and_taken_out_again():
    class Buffered(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.register_buffer("buffer", torch.arange(6.0), persistent=False)
            return x + self.buffer

    module = Buffered().eval()
    before = fingerprint(module)
    x = samples(6)
    graph = convert(module, x)
    assert fingerprint(module) == before
    expected = x.double() + torch.arange(6.0)
    np.testing.assert_array_equal(forward(graph, x.numpy())[graph.output], expected)
    assert not module._non_persistent_buffers_set


def test_graph_keeps_its_own_parameters():
    module = nn.Linear(6, 5).eval()
    graph = convert(module, samples(6))
    before = graph["linear"].operator.weight.copy()
    module.weight.data.zero_()
    np.testing.assert_array_equal(graph["linear"].operator.weight, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode(mode):
    with mode():
        module = initialise(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Flatten()))
        graph = convert(module, samples(*IMAGE))
        assert torch.is_grad_enabled() is (mode is torch.enable_grad)
    assert types(graph) == ["Conv", "BatchNorm", "Reshape"]


def test_deep_copy_and_threads_give_the_same_graph():
    module, x = toy("residual in place")
    graphs = [convert(module, x), convert(copy.deepcopy(module), x)]
    threads = [threading.Thread(target=lambda: graphs.append(convert(module, x))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({str(graph) for graph in graphs}) == 1
    assert len(graphs) == 4


# --- What is refused ---------------------------------------------------------------------------


def test_train_mode_is_refused():
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Dropout())
    with pytest.raises(ValueError, match=r"eval mode.*the module itself"):
        convert(network, samples(*IMAGE))
    network.eval()[1].train()
    with pytest.raises(ValueError, match=r"train mode: 1 \(BatchNorm2d\)"):
        convert(network, samples(*IMAGE))


def test_a_module_without_values_is_refused():
    module = initialise(nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())).to("meta")
    with pytest.raises(ValueError, match=r"0\.weight is on the meta device"):
        convert(module, samples(*IMAGE))


def test_functional_dropout_in_train_mode_is_refused():
    with pytest.raises(UnsupportedOperatorError, match="train mode"):
        convert(Function(lambda x: F.dropout(x, 0.5, True)).eval(), samples(6))


def test_all_unsupported_operators_are_listed():
    module = nn.Sequential(
        nn.Conv2d(4, 6, 3), Function(torch.atan), nn.Threshold(0.1, 2), nn.ReLU(), nn.Mish()
    )  # fmt: skip
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert(module.eval(), samples(*IMAGE))
    lines = str(caught.value).splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "aten.atan.default", "aten.threshold.default", "aten.mish.default"
    ]  # fmt: skip
    assert "node '2'" in lines[1]
    assert "Threshold" in lines[1]


def _response(x: Tensor, view: tuple[int, ...]) -> Tensor:
    """The denominator of a response norm over the second axis of a view of each sample."""
    squares = F.pad((x * x).view(-1, *view), (0, 0, 0, 0, 1, 1))
    return (F.avg_pool3d(squares, (3, 1, 1), 1).squeeze(1).view(x.shape) * 0.5 + 1) ** 0.75


def test_what_reads_an_unsupported_operator_is_not_listed():
    module = Function(lambda x: torch.ones_like(F.mish(x)) * x.relu())
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert(module.eval(), samples(6))
    assert [line.split()[0] for line in str(caught.value).splitlines()[1:]] == ["aten.mish.default"]


UNSUPPORTED = {
    "upsampling": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), IMAGE, "upsample_bicubic"),
    "layer norm by another spread": (
        lambda: Function(
            lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()
        ),
        VECTOR,
        "aten.var",
    ),
    "transposed convolution of windows": (
        lambda: Function(lambda x, conv: conv(x.reshape(-1, 1, 11)), nn.ConvTranspose1d(1, 1, 3)),
        SIGNAL,
        "conv.*batch axis",
    ),
    "bias of interleaved windows": (
        lambda: Function(
            lambda x, b: x.reshape(-1, 11) + b.repeat_interleave(x.shape[0], 0),
            b=torch.arange(4.0)[:, None],
        ),
        SIGNAL,
        "repeat_interleave.* depend on the batch size",
    ),
    "unit length over the batch": (
        lambda: Function(lambda x: F.normalize(x, dim=0)),
        VECTOR,
        "linalg_vector_norm",
    ),
    "length of another order": (
        lambda: Function(lambda x: x / x.norm(p=3, dim=-1, keepdim=True)),
        VECTOR,
        "orders? 1, 2 and inf are supported, not 3",
    ),
    "celu, turned": (lambda: nn.CELU(-1.0), IMAGE, "alpha must be above 0, not -1.0"),
    "elu of nothing": (
        lambda: Function(lambda x: torch.ops.aten.elu(x, 1.0, 1.0, 0.0)),
        IMAGE,
        "the last above 0, not 1.0, 1.0 and 0.0",
    ),
    "power of nothing": (lambda: Function(lambda x: x**0), VECTOR, "exponent of 0"),
    "power of the input": (lambda: Function(lambda x: x**x), VECTOR, "exponent depends"),
    "powers of their own": (
        lambda: Function(lambda x: x ** torch.arange(1, 7)),
        VECTOR,
        "exponents of their own",
    ),
    "exponent of more axes": (
        lambda: Function(lambda x: x ** torch.full((1, 1, 1), 2.0)),
        VECTOR,
        "exponents of their own|batch",
    ),
    "sum of windows": (
        lambda: Function(lambda x: F.fold(F.unfold(x, 3), (9, 7), 3)),
        IMAGE,
        "side by side",
    ),
    "flipped samples": (lambda: Function(lambda x: x.flip(0)), VECTOR, "batch"),
    "indices of two axes": (
        lambda: Function(lambda x: x[:, [0, 1], [2, 3]]),
        IMAGE,
        "several axes at once",
    ),
    "many indices": (
        lambda: Function(lambda x, i: x[:, i], i=torch.tensor([0, 0]).repeat(600)),
        VECTOR,
        "1200 runs of entries; 1000 are supported",
    ),
    "indices of the input": (
        lambda: Function(lambda x: x[:, x[0].argsort()]),
        VECTOR,
        "argsort|depend",
    ),
    "windows of samples": (lambda: Function(lambda x: x.unfold(0, 1, 1)), VECTOR, "batch"),
    "rounded quotient": (
        lambda: Function(lambda x: torch.div(x, x + 9, rounding_mode="floor")),
        VECTOR,
        "division with rounding",
    ),
    "assignment to each other": (
        lambda: Function(lambda x: torch.slice_scatter(x, x[:, ::2], 1, 0, 6, 2)),
        VECTOR,
        "one entry of 2",
    ),
    "assignment to samples": (
        lambda: Function(lambda x: torch.slice_scatter(x, x[:1], 0, 0, 1)),
        VECTOR,
        "batch",
    ),
    "ids that were numbers": (
        lambda: Function(lambda x: F.embedding(x.long(), torch.eye(4))),
        VECTOR,
        "cast from torch.float32",
    ),
    "log softmax inside": (
        lambda: nn.Sequential(nn.LogSoftmax(1), nn.Linear(6, 2)),
        VECTOR,
        "log softmax is supported only as the last",
    ),
    "filling by the input": (
        lambda: Function(lambda x: x.masked_fill(x > 0, -torch.inf).softmax(-1)),
        SEQUENCE,
        r"aten\.gt",
    ),
    "a mask that hides all": (
        lambda: Function(
            lambda x, m: F.scaled_dot_product_attention(x, x, x, m),
            m=torch.ones(5, 5).tril(-1).bool(),
        ),
        SEQUENCE,
        "leaves a row with nothing",
    ),
    "filling a row": (
        lambda: Function(
            lambda x, m: x.masked_fill(m, -torch.inf).softmax(-1), m=torch.ones(5, 1).bool()
        ),
        SEQUENCE,
        "leaves a row with nothing",
    ),
    "what is hidden from no softmax": (
        lambda: Function(
            lambda x, m: x.masked_fill(m, -torch.inf), m=torch.ones(5, 6).tril(-2).bool()
        ),
        SEQUENCE,
        "infinite",
    ),
    "attention with dropout": (
        lambda: Function(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1)),
        SEQUENCE,
        "drops values at random",
    ),
    "attention over the batch": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8),
        SEQUENCE,
        "scaled_dot_product_attention.*batch axis",
    ),
    "product that mixes samples": (
        lambda: Function(lambda x: x @ x.mT @ x),
        VECTOR,
        "matmul.*batch axis",
    ),
    "product of sequences that mixes samples": (
        lambda: Function(lambda x: x.transpose(0, 1) @ x.transpose(0, 1).mT @ x.transpose(0, 1)),
        SEQUENCE,
        "matmul.*batch axis",
    ),
    "einsum that mixes samples": (
        lambda: Function(lambda x: torch.einsum("nij,mij->nm", x, x)),
        SEQUENCE,
        "einsum.*batch axis",
    ),
    "einsum of branches and a constant": (
        lambda: Function(lambda x, w: torch.einsum("nij,nkj,j->nik", x, x, w), w=torch.ones(6)),
        SEQUENCE,
        "branches and constants",
    ),
    "einsum of three branches": (
        lambda: Function(lambda x: torch.einsum("nij,nkj,nlj->nikl", x, x, x)),
        SEQUENCE,
        "more than two",
    ),
    "roll of the batch": (lambda: Function(lambda x: x.roll(1, 0)), VECTOR, "batch"),
    "clamp by a tensor": (
        lambda: Function(lambda x, b: x.clamp(b, b + 1), b=torch.zeros(6)),
        VECTOR,
        "bounds",
    ),
    "clamp to nothing": (lambda: Function(lambda x: x.clamp(2, 1)), VECTOR, "between its bounds"),
    "maximum with a tensor": (
        lambda: Function(lambda x, b: torch.maximum(x, b), b=torch.zeros(6)),
        VECTOR,
        "bounds of their own",
    ),
    "product of batches": (
        lambda: Function(lambda x, w: torch.einsum("ntc,ntd->ncd", x, w), w=samples(3, 5)),
        (3, 4),
        "batch",
    ),
    "reflected padding": (lambda: nn.ReflectionPad2d(1), IMAGE, "reflection_pad2d|reflect"),
    "computed weight": (
        lambda: Function(lambda x: F.linear(x, x.mean(0, keepdim=True))),
        VECTOR,
        "batch",
    ),
    "bytes of another type": (
        lambda: Function(lambda x: x.view(torch.int32).float()),
        VECTOR,
        "view.dtype at node 'view': it reads the bytes of one type as another",
    ),
    "random numbers": (lambda: Function(lambda x: x + torch.rand(6)), VECTOR, "random"),
    "cast to half": (lambda: Function(lambda x: x.half() + 1), VECTOR, "cast"),
    "batch statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE, "statistics"),
    "adaptive max pool": (lambda: nn.AdaptiveMaxPool2d(2), IMAGE, "equal windows"),
    "indices": (
        lambda: Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[1]),
        IMAGE,
        "first result",
    ),
    "not finite": (
        lambda: Function(lambda x, b: x + b, b=torch.tensor(torch.inf)),
        VECTOR,
        "infinite",
    ),
    "complex": (lambda: Function(lambda x, b: (x * b).real, b=torch.tensor(1j)), VECTOR, "complex"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name):
    factory, shape, reason = UNSUPPORTED[name]
    with pytest.raises(UnsupportedOperatorError, match=reason):
        convert(factory().eval(), samples(*shape))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(0, keepdim=True),
        lambda x: x.mean(),
        lambda x: x.flatten(0, 1),
        lambda x: x.transpose(0, 1),
        lambda x: x[1:],
        lambda x: x[0],
        lambda x: torch.cat([x, x]),
        lambda x: torch.cat([x, x])[: len(x)],
        lambda x: torch.stack([x, x]),
        lambda x: x.softmax(0),
        lambda x: F.pad(x, (0, 0, 0, 0, 1, 0)),
        lambda x: x.view(2, -1),
        lambda x: x.view(-1, 12),
        lambda x: x * x.shape[0],
        lambda x: x / x.shape[0],
        lambda x: x + torch.tensor(x.shape[0]),
        lambda x: x + torch.full((1,), x.shape[0]),
        lambda x: x + torch.full_like(x, x.shape[0]),
        lambda x: x + torch.arange(x.shape[0])[:, None, None],
        beside_a_mask,
        lambda x: x + torch.ones(x.shape[0], 1, 1).cumsum(0),
        lambda x: x + torch.ones(100, 1, 1)[: x.shape[0]].cumsum(0),
        lambda x: x + torch.ones_like(x).sum(0),
        lambda x: x / x.new_full((x.shape[0], 1, 1), 2).sum(0),
        lambda x: x + torch.ones(x.shape[0], 6).triu(-1)[:, None],
        lambda x: x + torch.full((6,), x.shape[0] * 0.1),
        lambda x: x + torch.full((6,), x.shape[0] ** 0.5),
        lambda x: x + torch.ones(6) * torch.sym_not(x.shape[0] > 3),
        lambda x: x + torch.full((6,), x.sum().item()),
        lambda x: x * x[0].sum().item(),
    ],
)
def test_batch_axis_is_out_of_bounds(function):
    with pytest.raises(UnsupportedOperatorError, match=r"batch"):
        convert(Function(function).eval(), samples(4, 6))


@pytest.mark.parametrize(
    ("function", "conditions"),
    [
        (lambda x: x * 2 if x.size(0) > 4 else x + 1, ["s <= 4"]),
        (lambda x: x * 2 if x.size(0) % 2 == 0 else x + 1, ["Eq(Mod(s, 2), 0)"]),
        (lambda x: x * 2 if x.size(0) == 3 else x + 1, ["Ne(s, 3)"]),
        (lambda x: x * 2 if x.numel() < 100 else x + 1, ["24*s < 100"]),
        (lambda x: x * float(x.size(0) * 0.5), ["Eq(0.5*ToFloat(s), 1.0)"]),
        (lambda x: F.pad(x, (1, 1), value=x.size(0) * 0.5), ["Eq(0.5*ToFloat(s), 1.0)"]),
        (lambda x: x[:, x.size(0) - 1 : x.size(0)], ["s - 1 <= 4", "s <= 4"]),
        (lambda x: x.narrow(2, x.size(0), 2), ["s <= 6", "s <= 4"]),
        (lambda x: x[:100] + 1, ["s < 100"]),
    ],
)
def test_conditions_on_the_batch_size_are_told(function, conditions):
    with pytest.raises(UnsupportedOperatorError) as caught:
        convert(Function(function).eval(), samples(4, 6))
    lines = str(caught.value).splitlines()[1:]
    told = [
        re.fullmatch(r"  the condition (.*) on the batch size (s\d+) \(.*\); samples .*", line)
        for line in lines
    ]
    assert [one[1].replace(one[2], "s") for one in told if one] == conditions


FILLED = {
    "ones": lambda x: x * torch.ones_like(x).cumsum(1),
    "zeros": lambda x: x + torch.zeros_like(x).cos(),
    "integers": lambda x: x * torch.full_like(x, 2.7, dtype=torch.int64),
    "ids": lambda x: x + torch.eye(6)[:4][torch.ones_like(x[:, 0, :4], dtype=torch.int64)],
    "truths": lambda x: x * torch.where(x.new_ones(6, dtype=torch.bool), 2.0, 3.0),
    "no batch": lambda x: x - x.new_full((4, 1), 0.5),
    "numbers for each sample": lambda x: x + x.new_zeros(x.size(0), 1, 6).exp(),
}


@pytest.mark.parametrize("name", FILLED)
def test_constants_of_an_input_shape_and_type(name):
    assert_same(Function(FILLED[name]).eval(), samples(4, 6), 1e-6)


def test_constant_ids():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.word, self.kind = nn.Embedding(10, 4), nn.Embedding(2, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return self.word(ids) + self.kind(torch.zeros_like(ids))

    module, ids = Tokens().eval(), torch.tensor([[1, 5, 7], [0, 9, 9]])
    graph = convert(module, ids)
    expected = module(ids).detach().numpy()
    np.testing.assert_allclose(forward(graph, ids.numpy())[graph.output], expected, rtol=1e-6)


def test_constants_that_torch_cannot_compute_are_named():
    module = Function(lambda x: x + torch.eye(6)[torch.tensor([9])])
    with pytest.raises(
        UnsupportedOperatorError, match=r"aten.index.Tensor at node 'index'.* constants: index 9 is"
    ):
        convert(module.eval(), samples(6))


def test_constants_for_each_sample():
    def function(x: Tensor) -> Tensor:
        token = torch.arange(6.0).expand(x.shape[0], 1, 6)
        return torch.cat([token, x * torch.full((x.shape[0], 1, 6), 2.0)], 1).flatten(1)

    assert_same(Function(function).eval(), samples(4, 6))


# --- Several inputs and outputs ----------------------------------------------------------------


class Named(NamedTuple):
    scores: Tensor
    boxes: Tensor


@dataclass
class Prediction:
    scores: Tensor
    boxes: Tensor
    loss: Tensor | None = None
    features: Any = None


STRUCTURES = {
    "tensor": (lambda a, b: a, {"output": "a"}),
    "tuple": (lambda a, b: (a, b), {"output_0": "a", "output_1": "b"}),
    "list of one": (lambda a, b: [b], {"output_0": "b"}),
    "dictionary": (lambda a, b: {"z": a, 3: b}, {"z": "a", "3": "b"}),
    "named tuple": (Named, {"scores": "a", "boxes": "b"}),
    "dataclass": (Prediction, {"scores": "a", "boxes": "b"}),
    "one in another": (
        lambda a, b: Prediction(a, b, features=[b, {"low": a}]),
        {"scores": "a", "boxes": "b", "features.0": "b", "features.1.low": "a"},
    ),
    "in a tuple": (lambda a, b: (a, (b, None)), {"output_0": "a", "output_1.0": "b"}),
    "the same twice": (lambda a, b: (a, a), {"output_0": "a", "output_1": "a"}),
}


class Pair(nn.Module):
    """Two layers on two inputs, returned in any structure."""

    def __init__(self, structure: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.structure, self.a, self.b = structure, nn.Linear(6, 5), nn.Linear(4, 3)
        self.eval()

    def forward(self, image: Tensor, meta: Tensor) -> Any:
        return self.structure(self.a(image), self.b(meta))


class Cache:
    """What decoders return beside their scores."""


def test_what_no_trace_can_return_is_left_out_and_told():
    module = Pair(lambda a, b: Prediction(a, b, features=[Cache(), b]))
    with pytest.warns(UserWarning, match="returns a Cache, which torch.export cannot"):
        graph = convert(module, (samples(6), samples(4)))
    assert graph.outputs == {"scores": "a", "boxes": "b", "features.1": "b"}
    with pytest.raises(ValueError, match=r"Found .*Cache.* which is not a known type"):
        convert(Pair(lambda a, b: Cache()), (samples(6), samples(4)))


@pytest.mark.parametrize("name", STRUCTURES)
def test_outputs_are_named_by_where_they_stand(name):
    structure, outputs = STRUCTURES[name]
    module = Pair(structure)
    graph = convert(module, (samples(6), samples(4)))
    assert graph.outputs == outputs
    assert [(node.name, node.shape) for node in graph.inputs] == [("image", (6,)), ("meta", (4,))]
    x = {"image": samples(6, seed=1).numpy(), "meta": samples(4, seed=2).numpy()}
    values = forward(canonize(graph), x)
    with torch.no_grad():
        wanted = {"a": module.a(torch.from_numpy(x["image"]))}
        wanted["b"] = module.b(torch.from_numpy(x["meta"]))
    for node in set(outputs.values()):
        np.testing.assert_allclose(values[node], wanted[node].numpy(), rtol=1e-5, atol=1e-6)
    assert not module._forward_hooks


def test_inputs_are_named_by_their_arguments():
    class Joined(nn.Module):
        def forward(self, *parts: Tensor) -> Tensor:
            return torch.cat(parts, 1)

    names = [node.name for node in convert(Joined().eval(), (samples(6), samples(4))).inputs]
    assert names == ["parts_0", "parts_1"]
    named = convert(Pair(Named), {"meta": samples(4), "image": samples(6)})
    assert [node.name for node in named.inputs] == ["meta", "image"]

    class Capitals(nn.Module):
        def forward(self, x: Tensor, imgL: Tensor, X: Tensor, add: Tensor) -> Tensor:  # noqa: N803
            return torch.cat([x + X, imgL + add], 1)

    sizes = {"X": 6, "imgL": 3, "add": 3, "x": 6}
    example = {name: samples(size) for name, size in sizes.items()}
    graph = convert(Capitals().eval(), example)
    assert {node.name: node.shape for node in graph.inputs} == {n: (m,) for n, m in sizes.items()}
    relevance = relprop.torch.attribute(Capitals().eval(), example, 1)
    assert {name: tuple(one.shape) for name, one in relevance.items()} == {
        name: (2, size) for name, size in sizes.items()
    }
    assert [node.name for node in convert(nn.ReLU().eval(), (samples(6),)).inputs] == ["input"]
    assert [node.name for node in convert(Open().eval(), {"x": samples(6)}).inputs] == ["x"]


def test_inputs_that_mix_samples_or_name_layers():
    class Mixed(nn.Module):
        def forward(self, image: Tensor, meta: Tensor) -> Tensor:
            return torch.cat([image, meta])

    with pytest.raises(UnsupportedOperatorError, match="batch"):
        convert(Mixed().eval(), (samples(6), samples(6)))

    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Linear(6, 5)

        def forward(self, image: Tensor, meta: Tensor) -> Tensor:
            assert image.size(0) == meta.size(0)
            return self.image(image) + meta

    graph = convert(Clash().eval(), (samples(6), samples(5)))
    assert [node.name for node in graph] == ["image", "meta", "image#2", "add"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: (x, x + 1), "the output 'output_0' is the input 'input' itself"),
        (lambda x: {"y": x + 1, "n": 3}, "the output 'n' is 3, no tensor"),
        (lambda x: {1: x + 1, "1": x + 2}, "the output '1' is there twice"),
        (lambda x: None, "returns no tensor"),
        (lambda x: torch.ones(2), "'output' does not depend on any input"),
        (lambda x: x if x.sum() > 0 else -x, "cannot trace"),
        (lambda x: x[:, int(torch.arange(4).argmax())], "cannot trace.* data-dependent"),
    ],
)
def test_other_modules_that_are_refused(function, reason):
    with pytest.raises(ValueError, match=reason):
        convert(Function(function).eval(), samples(6))


def test_a_failure_is_raised_and_not_printed(capsys):
    with pytest.raises(ValueError, match="cannot trace the module: Could not guard on data"):
        convert(Function(lambda x: x if x.sum() > 0 else -x).eval(), samples(6))
    assert not any(capsys.readouterr())
    convert(Function(lambda x: (print("traced", file=sys.stderr), x + 1)[1]).eval(), samples(6))
    assert capsys.readouterr() == ("", "traced\n")


def test_a_failure_is_raised_and_not_logged():
    handler = logging.handlers.BufferingHandler(100)
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addHandler(handler)
    try:
        with pytest.raises(ValueError, match="cannot trace the module: a and b must have same"):
            convert(nn.Linear(6, 5).eval(), samples(4))
    finally:
        logger.removeHandler(handler)
    assert not handler.buffer


class Open(nn.Module):
    """Takes whatever else it is given as well."""

    def forward(self, x: Tensor, **rest: Tensor) -> Tensor:
        return sum(rest.values(), x.relu())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:.*quantiz:UserWarning")
def test_bad_arguments():
    module = nn.Linear(6, 5).eval()
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        convert(lambda x: x, samples(6))
    with pytest.raises(ValueError, match="cannot trace the module: too many positional arguments"):
        convert(module, (samples(6), samples(6)))
    with pytest.raises(TypeError, match=r"example\[1\] must be a tensor, not list; for several"):
        convert(module, (samples(6), [6]))
    with pytest.raises(ValueError, match=r"not of \*\*rest \(as b, c\), which torch\.export"):
        convert(Open().eval(), {"x": samples(6), "b": samples(6), "c": samples(6)})
    with pytest.raises(ValueError, match="a scripted module cannot be traced"):
        convert(torch.jit.script(module), samples(6))
    with pytest.raises(ValueError, match="batch"):
        convert(module, samples(6)[0])
    with pytest.raises(ValueError, match="empty"):
        convert(module, samples(6)[:0])
    for bad, kind in (
        (samples(6).to(torch.complex64), "torch.complex64"),
        (samples(6).to_sparse(), "torch.sparse_coo"),
        (torch.quantize_per_tensor(samples(6), 0.1, 0, torch.qint8), "torch.qint8"),
        (torch.nested.nested_tensor([samples(6)]), "nested"),
    ):
        with pytest.raises(ValueError, match=rf"example must be dense and of a real .*{kind}"):
            convert(module, bad)
    with pytest.raises(ValueError, match="cannot trace"):
        convert(module, samples(7))
