"""Networks of several inputs or outputs, and a U-Net, as torch modules with random weights."""

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
}
