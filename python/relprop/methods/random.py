"""The random control: an attribution that knows nothing of the network or the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relprop.methods.draws import generator_of
from relprop.methods.method import Attribution, ManyRuns, check_seed, one_map
from relprop.methods.runs import Runs


@dataclass(frozen=True)
class Random(ManyRuns):
    """A uniform draw from [0, 1) for every pixel, by the seed and the image's values."""

    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (1, H, W) for (C, H, W)."""
        return one_map(shape, "random")

    def attribute(self, runs: Runs) -> Attribution:
        """Draw; nothing is run."""
        drawn = np.empty((len(runs.images), *self.attribution_shape(runs.images.shape[1:])))
        for image, values in zip(runs.images, drawn):
            generator_of("random", self.seed, image).random(out=values)
        return Attribution(drawn)
