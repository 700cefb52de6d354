"""Small networks that are more than image in, scores out: torch modules with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import initialise


class TwoHeads(nn.Module):
    """A detector in small: classes and boxes from one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3), nn.ReLU(),
        )  # fmt: skip
        self.scores = nn.Linear(8 * 4, 5)
        self.hidden = nn.Linear(8 * 4, 6)
        self.boxes = nn.Linear(6, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.trunk(image).flatten(1)
        return {"scores": self.scores(features), "boxes": self.boxes(F.relu(self.hidden(features)))}


class Fusion(nn.Module):
    """An image and a vector of what else is known of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3)
        self.dense = nn.Linear(5, 7)
        self.scores = nn.Linear(6 * 16 + 7, 3)

    def forward(self, image: Tensor, meta: Tensor) -> Tensor:
        seen = F.relu(self.conv(image)).flatten(1)
        return self.scores(torch.cat([seen, F.relu(self.dense(meta))], 1))


class Siamese(nn.Module):
    """Two images through the same layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3)
        self.dense = nn.Linear(6 * 16, 8)
        self.scores = nn.Linear(8, 3)

    def embed(self, image: Tensor) -> Tensor:
        return F.relu(self.dense(F.relu(self.conv(image)).flatten(1)))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.scores(F.relu(self.embed(left) + self.embed(right)))


class UNet(nn.Module):
    """Two levels down, two up by transposed convolutions, with skips (Ronneberger et al. 2015)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = block(3, 6), block(6, 8), block(8, 10)
        self.up2, self.level2 = nn.ConvTranspose2d(10, 8, 2, 2), block(16, 8)
        self.up1, self.level1 = nn.ConvTranspose2d(8, 6, 2, 2), block(12, 6)
        self.head = nn.Conv2d(6, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.down1(image)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.bottom(F.max_pool2d(second, 2))
        x = self.level2(torch.cat([second, self.up2(x)], 1))
        x = self.level1(torch.cat([first, self.up1(x)], 1))
        return self.head(x)


class Waveform(nn.Module):
    """A signal, cut into frames by a strided convolution, then seen at growing dilations."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv1d(1, 8, 9, stride=4, padding=4, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
            nn.MaxPool1d(3, 2, 1),
        )  # fmt: skip
        self.wide = nn.Sequential(
            nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8), nn.Conv1d(8, 8, 1),
            nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3, padding=4, dilation=4),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.AvgPool1d(2), nn.ConvTranspose1d(8, 6, 4, 2, 1), nn.BatchNorm1d(6), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, signal: Tensor) -> Tensor:
        frames = self.frames(signal)
        return self.head(F.relu(frames + self.wide(frames)))


class Scan(nn.Module):
    """A volume through a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(2, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6), nn.ReLU(),
            nn.MaxPool3d(2),
        )  # fmt: skip
        self.residual = nn.Sequential(
            nn.Conv3d(6, 6, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(6), nn.ReLU(),
            nn.Conv3d(6, 6, (3, 1, 1), padding=(1, 0, 0)), nn.BatchNorm3d(6),
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Conv3d(6, 8, 2, stride=2), nn.ReLU(), nn.AvgPool3d((1, 2, 2)), nn.Flatten(),
            nn.Linear(8, 3),
        )  # fmt: skip

    def forward(self, volume: Tensor) -> Tensor:
        x = self.stem(volume)
        return self.head(F.relu(x + self.residual(x)))


def block(channels: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


@dataclass(frozen=True)
class Branching:
    """How to make a network, the shape of each input, and the names of its outputs."""

    make: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...] = ("output",)

    def module(self) -> nn.Module:
        return initialise(self.make())

    def example(self, samples: int = 2, seed: int = 0) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(samples, *shape, generator=draw)
            for name, shape in self.inputs.items()
        }


BRANCHING = {
    "two heads": Branching(TwoHeads, {"image": (3, 8, 8)}, ("scores", "boxes")),
    "image and vector": Branching(Fusion, {"image": (2, 6, 6), "meta": (5,)}),
    "siamese": Branching(Siamese, {"left": (2, 6, 6), "right": (2, 6, 6)}),
    "u-net": Branching(UNet, {"image": (3, 16, 12)}),
    "waveform": Branching(Waveform, {"signal": (1, 80)}),
    "scan": Branching(Scan, {"volume": (2, 4, 8, 8)}),
}
