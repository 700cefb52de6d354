"""Sums over thousands of places in the core. Where all are alike, rounding errors of a float's sum
all go one way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import relprop

SIDE, CHANNELS = 128, 21
LEVELS = (0.1, 0.3, 0.7)
"""What all pixels of an image are."""


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def context(x: torch.Tensor) -> torch.Tensor:
    """The mean of an image is added to each of its pixels, and handed down by all of them."""
    return (x + x.mean((2, 3), keepdim=True)).mean((2, 3))


def enlarged(x: torch.Tensor, mode: str) -> torch.Tensor:
    """One pixel becomes a whole image."""
    one = functional.adaptive_avg_pool2d(x, 1)
    return functional.interpolate(one, (SIDE, SIDE), mode=mode).mean((2, 3))


@pytest.mark.parametrize(
    ("function", "times"),
    [
        (lambda x: x.mean((2, 3)), 1),
        (lambda x: functional.avg_pool2d(x, 64, 32).amax((2, 3)), 1),
        (lambda x: functional.avg_pool2d(x, (SIDE, 3), 1).mean((2, 3)), 1),
        (lambda x: functional.adaptive_avg_pool2d(x, 3).mean((2, 3)), 1),
        (context, 2),
        (lambda x: enlarged(x, "nearest"), 1),
        (lambda x: enlarged(x, "bilinear"), 1),
    ],
    ids=["mean", "windows", "bands", "adaptive", "context", "nearest", "bilinear"],
)
def test_flat_images(function: Callable[[torch.Tensor], torch.Tensor], times: int) -> None:
    images = np.empty((len(LEVELS), CHANNELS, SIDE, SIDE), np.float32)
    images[:] = np.reshape(LEVELS, (-1, 1, 1, 1))
    model = relprop.load(Calls(function).eval(), images.shape[1:])
    result = relprop.Explainer(model, "epsilon", epsilon=1e-9)(images, 2)
    exact = images[:, :, 0, 0].astype(np.float64)
    np.testing.assert_allclose(result.scores, times * exact, rtol=3e-7)
    np.testing.assert_allclose(result.relevance[:, 2].sum((1, 2)), result.scores[:, 2], rtol=1e-6)
    assert result.ledger is not None
    assert (result.ledger.closure_error <= 1e-6).all()
