"""Gradient x input: the gradient's first-order share of every value."""

from __future__ import annotations

from dataclasses import dataclass

from relprop.methods.method import Float32, OneRun


@dataclass(frozen=True)
class GradientXInput(OneRun):
    """The gradient times the input, value by value (Shrikumar et al. 2016)."""

    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the input's own shape."""
        return shape

    def read(self, images: Float32, relevance: Float32) -> Float32:
        """Multiply."""
        return relevance * images
