"""Twenty-two networks without biases, for which relevance under epsilon sums to the score.

Each holds one construction that attribution tools are known to get wrong: functional calls,
reused modules, in-place sums, gates, attention. ``sum R / f`` must be 1.000 for all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (3, 8, 8)
SEQUENCE = (5, 8)


class Toy(nn.Module):
    """Holds modules and a function of them and the input."""

    def __init__(self, function: Callable[[Toy, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Weights(nn.Module):
    """Bare parameters, for functional calls."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(0.3 * torch.randn(shape)))


def conv(channels: int = 3, width: int = 6) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, bias=False)


def head(features: int = 6) -> nn.Sequential:
    """Global mean and a dense layer."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 4, bias=False)
    )  # fmt: skip


def with_activation(activation: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(conv(), activation(), conv(6, 6), activation(), head())


def functional_max_pool() -> nn.Module:
    return Toy(
        lambda m, x: m.head(F.max_pool2d(F.relu(m.conv(x)), 2)), conv=conv(), head=head()
    )  # fmt: skip


def functional_mean() -> nn.Module:
    return Toy(
        lambda m, x: m.linear(F.avg_pool2d(F.relu(m.conv(x)), 2).mean((2, 3))),
        conv=conv(),
        linear=nn.Linear(6, 4, bias=False),
    )


def functional_layers() -> nn.Module:
    def forward(m: Toy, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, m.weights.conv, padding=1))
        return F.linear(x.flatten(1), m.weights.linear)

    return Toy(forward, weights=Weights(conv=(6, 3, 3, 3), linear=(4, 6 * 8 * 8)))


def reused_relu() -> nn.Module:
    return Toy(
        lambda m, x: m.head(m.relu(m.second(m.relu(m.first(x))))),
        first=conv(),
        second=conv(6, 6),
        relu=nn.ReLU(),
        head=head(),
    )


def reused_conv() -> nn.Module:
    return Toy(
        lambda m, x: m.head(F.relu(m.conv(F.relu(m.conv(x))))), conv=conv(3, 3), head=head(3)
    )  # fmt: skip


def residual() -> nn.Module:
    return Toy(
        lambda m, x: m.head(F.relu(x + m.second(F.relu(m.first(x))))),
        first=conv(),
        second=conv(6, 3),
        head=head(3),
    )


def residual_in_place() -> nn.Module:
    def forward(m: Toy, x: Tensor) -> Tensor:
        out = m.second(F.relu(m.first(x)))
        out += x
        return m.head(F.relu(out))

    return Toy(forward, first=conv(), second=conv(6, 3), head=head(3))


def concatenation() -> nn.Module:
    return Toy(
        lambda m, x: m.head(torch.cat([F.relu(m.first(x)), F.relu(m.second(x))], 1)),
        first=conv(),
        second=conv(3, 2),
        head=head(8),
    )


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(6)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.running_var.uniform_(0.5, 2.0)
    return nn.Sequential(conv(), norm, nn.ReLU(), head())


def upsampling() -> nn.Module:
    scale = nn.Upsample(scale_factor=2, mode="bilinear")
    return nn.Sequential(conv(), nn.ReLU(), scale, conv(6, 6), nn.ReLU(), head())


def transposed_conv() -> nn.Module:
    up = nn.ConvTranspose2d(6, 6, 3, stride=2, bias=False)
    return nn.Sequential(conv(), nn.ReLU(), up, nn.ReLU(), head())


def squeeze_excite() -> nn.Module:
    def forward(m: Toy, x: Tensor) -> Tensor:
        x = F.relu(m.conv(x))
        gate = m.widen(F.relu(m.narrow(x.mean((2, 3)))))
        return m.head(x * torch.sigmoid(gate)[:, :, None, None])

    narrow, widen = nn.Linear(6, 3, bias=False), nn.Linear(3, 6, bias=False)
    return Toy(forward, conv=conv(), narrow=narrow, widen=widen, head=head())


def attention() -> nn.Module:
    return Toy(
        lambda m, x: m.linear(m.attention(x, x, x, need_weights=False)[0].mean(1)),
        attention=nn.MultiheadAttention(8, 2, bias=False, batch_first=True),
        linear=nn.Linear(8, 4, bias=False),
    )


def layer_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 8, bias=False), nn.LayerNorm(8, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(5 * 8, 4, bias=False),
    )  # fmt: skip


def lstm() -> nn.Module:
    return Toy(
        lambda m, x: m.linear(m.lstm(x)[0][:, -1]),
        lstm=nn.LSTM(8, 6, bias=False, batch_first=True),
        linear=nn.Linear(6, 4, bias=False),
    )


def einsum() -> nn.Module:
    return Toy(
        lambda m, x: m.linear(F.relu(torch.einsum("ntc,cd->ntd", x, m.weights.mix)).mean(1)),
        weights=Weights(mix=(8, 6)),
        linear=nn.Linear(6, 4, bias=False),
    )


Factory = Callable[[], nn.Module]

TOY_NETWORKS: dict[str, tuple[Factory, tuple[int, ...]]] = {
    "sequential": (with_activation(nn.ReLU), IMAGE),
    "relu in place": (with_activation(lambda: nn.ReLU(inplace=True)), IMAGE),
    "gelu": (with_activation(nn.GELU), IMAGE),
    "silu": (with_activation(nn.SiLU), IMAGE),
    "leaky relu": (with_activation(nn.LeakyReLU), IMAGE),
    "elu": (with_activation(nn.ELU), IMAGE),
    "functional relu, max pool": (functional_max_pool, IMAGE),
    "functional average pool, mean": (functional_mean, IMAGE),
    "functional conv, linear": (functional_layers, IMAGE),
    "relu used twice": (reused_relu, IMAGE),
    "conv used twice": (reused_conv, IMAGE),
    "residual": (residual, IMAGE),
    "residual in place": (residual_in_place, IMAGE),
    "concatenation": (concatenation, IMAGE),
    "batch norm, zero shift": (batch_norm, IMAGE),
    "bilinear upsampling": (upsampling, IMAGE),
    "transposed conv": (transposed_conv, IMAGE),
    "squeeze-excite gate": (squeeze_excite, IMAGE),
    "multi-head attention": (attention, SEQUENCE),
    "layer norm": (layer_norm, SEQUENCE),
    "lstm": (lstm, SEQUENCE),
    "einsum": (einsum, SEQUENCE),
}
"""Name to factory and input shape without the batch axis."""


def toy(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A toy network in eval mode and two samples for it, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory, shape = TOY_NETWORKS[name]
        return factory().eval(), torch.randn(2, *shape)
