"""Networks on which methods are held against other libraries, and what both are held by."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import ResNet20, initialise
from real_data import real
from relprop.preprocessing import Preprocessing


class Branches(nn.Module):
    """A residual sum, a concatenation, max pooling, a gate, ReLU6 and smooth activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.down, self.gate = nn.Conv2d(12, 12, 3, 2), nn.Conv2d(12, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = torch.cat([F.relu6(x + self.left(x)), F.silu(self.right(x))], 1)
        x = F.gelu(self.down(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), True)))
        return self.head(F.leaky_relu(x, 0.2).mean((2, 3)))


def sequential() -> nn.Module:
    """A plain network of convolutions, ReLUs and pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 5),
    )  # fmt: skip


def trained_resnet20() -> tuple[nn.Module, Tensor]:
    """ResNet-20 with its weights for CIFAR-10, and three photos."""
    weights, *photos = real(
        "models/resnet20_cifar10.pth",
        *(f"photos/{photo}1.jpg" for photo in ("rooster", "espresso", "ladybug")),
    )
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    module = ResNet20()
    module.load_state_dict({key.removeprefix("module."): v for key, v in state.items()})
    preprocessing = Preprocessing(
        size=(32, 32), resize=32, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)
    )
    x = np.stack([preprocessing(relprop.read_image(photo)) for photo in photos])
    return module.eval(), torch.from_numpy(x)


@lru_cache
def network(name: str) -> tuple[nn.Module, relprop.Model, np.ndarray]:
    """A module in float64, the model of it in float32, and images."""
    if name == "resnet20":
        module, x = trained_resnet20()
    else:
        module = initialise(Branches() if name == "branches" else sequential())
        x = torch.randn(5, 3, 14, 14, generator=torch.Generator().manual_seed(0))
        x = x[..., :12, :12].contiguous() if name == "sequential" else x
    model = relprop.load(module, x)
    return module.double(), model, x.numpy()


NETWORKS = ("branches", "sequential", "resnet20")


def errors(found: Any, truth: Any) -> list[float]:
    """Each sample's relative error."""
    truth = truth.detach().numpy() if isinstance(truth, Tensor) else truth
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, truth)]


def double(x: np.ndarray) -> Tensor:
    """Images as the other libraries get them."""
    return torch.from_numpy(x).double()


def quietly(function: Any, *arguments: Any, **options: Any) -> Any:
    """Call a peer that warns of what it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)
