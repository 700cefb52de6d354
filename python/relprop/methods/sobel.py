"""The edge control: an attribution that knows the image alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relprop.methods.method import Attribution, ManyRuns, one_map
from relprop.methods.runs import Runs


@dataclass(frozen=True)
class Sobel(ManyRuns):
    """The strength of edges in the channels' sum, by Sobel's filter.

    As scikit-image's ``sobel``: differences between the two neighbours along each axis, smoothed
    by (1, 2, 1) / 4 across it, and the root of the mean of both squares; beyond the border the
    image goes on as at it. Values are those that the network is given: the preprocessed image's.
    """

    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (1, H, W) for (C, H, W)."""
        return one_map(shape, "sobel")

    def attribute(self, runs: Runs) -> Attribution:
        """Filter; nothing is run."""
        grey = runs.images.sum(axis=1, keepdims=True, dtype=np.float64)
        wide = np.pad(grey, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        down = wide[:, :, 2:] - wide[:, :, :-2]
        across = wide[..., 2:] - wide[..., :-2]
        down = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 4
        across = (across[:, :, :-2] + 2 * across[:, :, 1:-1] + across[:, :, 2:]) / 4
        return Attribution(np.sqrt((down**2 + across**2) / 2))
