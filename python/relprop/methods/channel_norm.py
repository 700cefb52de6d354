"""A norm over channels: sensitivity, where what it is taken of is the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from relprop.methods.method import Float32, OneRun, one_map

Norm = Literal["l2", "max"]


@dataclass(frozen=True)
class ChannelNorm(OneRun):
    """For every pixel the norm of its channels' relevance (Simonyan et al. 2013).

    ``norm`` is ``"l2"`` for the root of the sum of squares, or ``"max"`` for the largest magnitude
    (the l-infinity norm).
    """

    norm: Norm = "l2"

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "max"):
            raise ValueError(f'norm must be "l2" or "max", not {self.norm!r}.')

    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (1, H, W) for (C, H, W)."""
        return one_map(shape, "a norm over channels")

    def read(self, images: Float32, relevance: Float32) -> Float32:
        """Take the norm of every pixel, in float64."""
        if self.norm == "max":
            found = np.abs(relevance).max(axis=1, keepdims=True)
        else:
            found = np.sqrt(np.square(relevance, dtype=np.float64).sum(axis=1, keepdims=True))
        return found.astype(np.float32)  # type: ignore[no-any-return]
