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


def write_caffenet(module: nn.Module, path: Path) -> Path:
    """Write CaffeNet's weights under the names that its prototxt gives them."""
    names = [*(f"conv{i}" for i in range(1, 6)), *(f"fc{i}" for i in range(6, 9))]
    layers = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    return write_weights(
        path,
        {
            name: [layer.weight.detach().numpy(), layer.bias.detach().numpy()]
            for name, layer in zip(names, layers)
        },
    )
