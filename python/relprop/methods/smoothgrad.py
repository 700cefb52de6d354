"""SmoothGrad: the mean gradient over noisy copies of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

import numpy as np

from relprop.methods.draws import generator_of
from relprop.methods.method import Attribution, Float32, ManyRuns, check_count, check_seed
from relprop.methods.runs import Runs


@dataclass(frozen=True)
class SmoothGrad(ManyRuns):
    """The mean relevance of ``samples`` copies with Gaussian noise (Smilkov et al. 2017).

    The noise's standard deviation is ``noise`` times the range, largest less smallest value, of
    the image itself. It belongs to the seed and the image's values: an image gets the same noise in
    whatever batch it is. The sum is float64.
    """

    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        if not isinstance(self.noise, Real):
            raise TypeError(f"noise must be a number, not {self.noise!r}.")
        if not 0 <= self.noise < np.inf:
            raise ValueError(f"noise must be finite and >= 0, not {self.noise!r}.")
        check_seed(self.seed)

    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the input's own shape."""
        return shape

    def attribute(self, runs: Runs) -> Attribution:
        """Run every sample's noisy copies."""
        total = np.zeros(runs.images.shape)
        copies = (
            (i, copy) for i, image in enumerate(runs.images) for copy in self.noisy_copies(image)
        )
        for i, relevance in runs.relevance(copies):
            total[i] += relevance
        return Attribution(total / self.samples)

    def noisy_copies(self, image: Float32) -> Iterator[Float32]:
        """Yield the copies that one image's attribution is made of."""
        deviation = np.float32(self.noise * (float(image.max()) - float(image.min())))
        generator = generator_of("smoothgrad", self.seed, image)
        for _ in range(self.samples):
            yield image + deviation * generator.standard_normal(image.shape, np.float32)
