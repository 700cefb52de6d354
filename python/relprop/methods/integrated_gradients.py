"""Integrated gradients: the gradient along the straight way from a baseline to the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, get_args

import numpy as np

from relprop.methods.method import Attribution, Float32, Float64, ManyRuns, check_count
from relprop.methods.replacement import Replacement, Values
from relprop.methods.runs import Runs

Quadrature = Literal[
    "gauss_legendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"
]


@dataclass(frozen=True)
class IntegratedGradients(ManyRuns):
    """``x - b`` times the mean gradient between ``b`` and ``x`` (Sundararajan et al. 2017).

    The mean is a sum over ``steps`` points of the way, in float64. What it sums to would be
    f(x) - f(b) if it were exact; the completeness error says how far it is from that.

    ``baseline`` is a number, one per channel or an array of a sample's shape, in the units of the
    network's input: 0 is the mean colour where preprocessing takes the mean away.
    """

    steps: int = 50
    quadrature: Quadrature = "gauss_legendre"
    baseline: Values = 0.0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        if self.quadrature not in get_args(Quadrature):
            known = ", ".join(get_args(Quadrature))
            raise ValueError(f"quadrature must be one of {known}, not {self.quadrature!r}.")
        if self.quadrature == "riemann_trapezoid" and self.steps < 2:
            raise ValueError("steps must be at least 2 under riemann_trapezoid, not 1.")
        object.__setattr__(self, "baseline", Replacement.read(self.baseline, "baseline"))

    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the input's own shape, which the baseline must fit."""
        self.baseline.image(shape, "baseline")
        return shape

    def attribute(self, runs: Runs) -> Attribution:
        """Run every sample's points."""
        baseline = self.baseline.image(runs.images.shape[1:], "baseline")
        points, weights = points_and_weights(self.quadrature, self.steps)
        total = np.zeros(runs.images.shape)
        found = runs.relevance(_ways(runs.images, baseline, points))
        for (i, gradient), weight in zip(found, cycle(weights)):
            total[i] += weight * gradient
        total *= runs.images.astype(np.float64) - baseline
        at_baseline = [f for _, f in runs.values((i, baseline) for i in range(len(total)))]
        expected = runs.explained - np.array(at_baseline, np.float64)
        sums = total.reshape(len(total), -1).sum(axis=1) if total.size else np.zeros(len(total))
        return Attribution(total, sums - expected)


def _ways(images: Float32, baseline: Float32, points: Float64) -> Iterator[tuple[int, Float32]]:
    """Each sample's images at the points."""
    start = baseline.astype(np.float64)
    for i, image in enumerate(images):
        way = image - start
        for point in points:
            yield i, (start + point * way).astype(np.float32)


def points_and_weights(quadrature: Quadrature, steps: int) -> tuple[Float64, Float64]:
    """Return where on [0, 1] an integral looks, ascending, and with which weights, of sum one."""
    if quadrature == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1) / 2, weights / 2
    if quadrature == "riemann_trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[quadrature]
    return (np.arange(steps) + offset) / steps, np.full(steps, 1 / steps)
