"""The networks that the tests run: those that are timed, and some more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.benchmark.networks import NETWORKS as TIMED
from relprop.benchmark.networks import (
    BasicBlock,
    Factory,
    VisionTransformer,
    initialise,
    vgg16,
)

__all__ = ["NETWORKS", "BasicBlock", "initialise"]


def alexnet() -> nn.Module:
    """AlexNet in its one-tower form (Krizhevsky 2014)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten(),
        nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 1000),
    )  # fmt: skip


def vgg16_bn() -> nn.Module:
    return vgg16(batch_norm=True)


def with_small_head(module: nn.Module) -> nn.Module:
    """AlexNet or VGG for images of 64 or 32 pixels: its convolutions, and a head that fits."""
    parts = [p for p in module if not isinstance(p, (nn.Linear, nn.AdaptiveAvgPool2d))]
    width = [p for p in parts if isinstance(p, nn.Conv2d)][-1].out_channels
    return nn.Sequential(*parts, nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 10))


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1, batch norm, ReLU, 3x3; the output joins all earlier ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(out)))], 1)


def densenet121() -> nn.Module:
    """DenseNet-121 (Huang et al. 2016)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    channels = 64
    for stage, depth in enumerate((6, 12, 24, 16)):
        if stage > 0:
            half = nn.Conv2d(channels, channels // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), half, nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(depth):
            layers.append(DenseLayer(channels))
            channels += 32
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, 1000))


class CifarBlock(nn.Module):
    """Basic block whose shortcut subsamples and pads channels with zeros (option A)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.widen = width - channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.widen:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.widen // 2, self.widen // 2))
        out += x
        return F.relu(out)


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 (He et al. 2015, section 4.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(CifarBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(
            CifarBlock(16, 32, 2), *(CifarBlock(32, 32, 1) for _ in range(2))
        )
        self.layer3 = nn.Sequential(
            CifarBlock(32, 64, 2), *(CifarBlock(64, 64, 1) for _ in range(2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.shape[3])
        return self.linear(x.view(x.shape[0], -1))


def small_vit() -> nn.Module:
    return VisionTransformer(patch=16, width=48, depth=3, heads=4, size=64)


NETWORKS: dict[str, tuple[Factory, tuple[int, int, int]]] = {
    "alexnet": (alexnet, (3, 224, 224)),
    "vgg16_bn": (vgg16_bn, (3, 224, 224)),
    "densenet121": (densenet121, (3, 224, 224)),
    "resnet20": (ResNet20, (3, 32, 32)),
    "vit": (small_vit, (3, 64, 64)),
    # these have tests of their own
    **{name: network for name, network in TIMED.items() if name not in ("caffenet", "vit_b_16")},
}
"""Name to factory and input shape; pass what the factory makes to :func:`initialise`."""
