"""Caffe files made for tests: weights written through the reader's own messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from relprop.frontends.caffe_proto import Weights

CAFFENET = Path(__file__).with_name("caffenet.prototxt")


def write_weights(
    path: Path, blobs: Mapping[str, Sequence[ArrayLike]], legacy: bool = False
) -> Path:
    """Write a caffemodel; a legacy one has V1 layers, whose blobs all have four axes."""
    saved = Weights()
    for name, arrays in blobs.items():
        layer = (saved.layers if legacy else saved.layer).add(name=name.encode())
        for array in arrays:
            values = np.asarray(array, "<f4")
            blob = layer.blobs.add(data=[values.tobytes()])
            if legacy:
                sizes = (1,) * (4 - values.ndim) + values.shape
                blob.num, blob.channels, blob.height, blob.width = sizes
            else:
                blob.shape.dim.extend(values.shape)
    path.write_bytes(saved.SerializeToString())
    return path


def caffenet() -> nn.Module:
    """CaffeNet as a torch module."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(5, 1e-4, 0.75),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.LocalResponseNorm(5, 1e-4, 0.75),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000),
    )  # fmt: skip


def write_caffenet(module: nn.Module, path: Path) -> Path:
    """Write the weights of :func:`caffenet` under the names that its prototxt gives them."""
    names = [*(f"conv{i}" for i in range(1, 6)), *(f"fc{i}" for i in range(6, 9))]
    layers = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    return write_weights(
        path,
        {
            name: [layer.weight.detach().numpy(), layer.bias.detach().numpy()]
            for name, layer in zip(names, layers)
        },
    )
