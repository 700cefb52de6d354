"""A torch module explained directly and by way of an ONNX file: the same scores and relevance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import NETWORKS, initialise
from onnx_models import exported
from relprop import Explainer, Graph
from relprop.canonizers import canonize
from relprop.frontends import torch as torch_frontend
from toy_networks import TOY_NETWORKS, toy
from transformer_networks import TRANSFORMERS, transformer


def assert_same(
    module: nn.Module, x: Tensor, exporter: str, folder: Path, attention: bool = False
) -> None:
    through_file = exported(module, (x,), exporter, folder)
    directly = canonize(torch_frontend.convert(module, x))
    # Reshapes in a row may come as one; everything else is the same node by node. Of attention
    # exporters share the scale out between queries and keys; ONNX's LSTM has an axis of directions.
    assert attention or layers(through_file) == layers(directly)
    shape = directly[directly.output].shape
    target = np.random.default_rng(0).normal(size=(len(x), *shape)).astype(np.float32)
    a, b = (
        Explainer(graph, "epsilon_plus_flat")(x.numpy(), target if len(shape) > 1 else "argmax")
        for graph in (through_file, directly)
    )
    for name in ("scores", "relevance"):
        expected = getattr(b, name)
        error = np.linalg.norm(getattr(a, name) - expected) / np.linalg.norm(expected)
        assert error <= 1e-5, (name, error)


def layers(graph: Graph) -> list[tuple[str, tuple[int, ...]]]:
    return [(node.type, node.shape) for node in graph if node.type != "Reshape"]


SIZES = {"resnet20": 32, "vit": 64, "efficientnet_lite0": 224, "googlenet": 48, "alexnet": 64}


# The VGGs, ResNet-50 and MobileNetV2 hold nothing that the others do not.
FAMILIES = sorted(NETWORKS.keys() - {"vgg16", "vgg16_bn", "resnet50", "mobilenet_v2"})


@pytest.mark.parametrize("name", FAMILIES)
def test_network(name, tmp_path):
    factory, _ = NETWORKS[name]
    module = initialise(factory())
    if name == "alexnet":  # ONNX has no operator for its pool, which makes larger what is small
        parts = list(module)
        pool = next(i for i, p in enumerate(parts) if isinstance(p, nn.AdaptiveAvgPool2d))
        module = nn.Sequential(*parts[:pool], nn.Flatten()).eval()
    size = SIZES.get(name, 32)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert_same(module, x, "trace", tmp_path, attention=name == "vit")


@pytest.mark.parametrize("name", TOY_NETWORKS)
def test_toy_network(name, tmp_path):
    assert_same(*toy(name), "trace", tmp_path, attention="attention" in name or name == "lstm")


@pytest.mark.parametrize("exporter", ["trace", "export"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformer(name, exporter, tmp_path):
    assert_same(*transformer(name), exporter, tmp_path, attention=True)


class Function(nn.Module):
    """A function between two layers."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function, self.prelu = function, nn.PReLU(4)
        self.first, self.last = nn.Linear(6, 6), nn.Linear(4 * 5 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x), self.prelu).flatten(1))


SPELLINGS = {
    "subtract": lambda x, _: (x - 1) - (2 - x.relu()),
    "negate and divide": lambda x, _: -x / 4,
    "chunk": lambda x, _: torch.cat(x.chunk(2, 2)[::-1], 2),
    "split": lambda x, _: torch.cat(x.split([1, 2, 2], 2)[::-1], 2),
    "unbind": lambda x, _: torch.stack(x.unbind(1)[::-1], 1),
    "squeeze": lambda x, _: x.unsqueeze(2).squeeze(2),
    "index by None": lambda x, _: x[:, :, None].mean(2),
    "clamp": lambda x, _: x.clamp(-0.5, 0.25),
    "maximum": lambda x, _: torch.maximum(x, x.mean(2, keepdim=True)),
    "minimum": lambda x, _: torch.min(torch.min(x, -x), torch.tensor(-0.125)),
    "prelu": lambda x, prelu: prelu(x),
    "response norm": lambda x, _: nn.functional.local_response_norm(x, 3),
    "response norm of volumes": lambda x, _: nn.functional.local_response_norm(x[:, :, None], 4)[
        :, :, 0
    ],
    "matrix first": lambda x, _: torch.ones(5, 5) @ x,
    "product of branches": lambda x, _: (x.transpose(2, 3) @ x)[:, :, :5],
    "rms norm": lambda x, _: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    "group norm": lambda x, _: nn.functional.group_norm(x, 2, torch.ones(4) * 2, torch.ones(4)),
    "instance norm": lambda x, _: nn.functional.instance_norm(x, eps=0.1),
    "mask": lambda x, _: x.masked_fill(torch.ones(5, 6).triu(1).bool(), -torch.inf).softmax(-1),
    "roll": lambda x, _: x.roll(1, 2),
    "repeat": lambda x, _: x.repeat(1, 1, 2, 1)[:, :, 3:8],
    "expand": lambda x, _: x[:, :1].expand(-1, 4, -1, -1),
    "einsum of branches": lambda x, _: torch.einsum("nchw,nkhw->nchk", x, x).repeat(1, 1, 1, 2)[
        ..., :6
    ],
    "einsum": lambda x, _: torch.einsum("nchw,hk->nckw", x, torch.ones(5, 5)),
    "einsum by matrices of their own": lambda x, _: torch.einsum(
        "nchw,hwk->nchk", x, torch.arange(180.0).reshape(5, 6, 6).cos()
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spelling(name, tmp_path):
    module = Function(SPELLINGS[name]).eval()
    x = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    through_file = Explainer(exported(module, (x,), "trace", tmp_path), "epsilon_plus")(x.numpy())
    directly = Explainer(canonize(torch_frontend.convert(module, x)), "epsilon_plus")(x.numpy())
    np.testing.assert_allclose(through_file.scores, directly.scores, rtol=1e-5, atol=1e-6)
    scale = np.abs(directly.relevance).max()
    np.testing.assert_allclose(through_file.relevance, directly.relevance, atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["gelu", "squeeze-excite gate"])
def test_toy_network_exported(name, tmp_path):
    assert_same(*toy(name), "export", tmp_path)
