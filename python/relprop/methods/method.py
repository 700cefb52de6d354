"""What a method is: a reading of one plain run, or something made of many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.methods.runs import Runs

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Attribution:
    """What a method found: (N, *attribution shape), and (N,) completeness errors where it has any.

    The completeness error is the sum of the attribution less what it should sum to.
    """

    values: NDArray[Any]
    completeness: Float64 | None = None


class Method(ABC):
    """How an attribution is made of plain runs under a composite's rules."""

    @abstractmethod
    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return an attribution's shape for an input's, both without the batch axis.

        Raises
        ------
        ValueError
            If the method does not serve inputs of this shape.
        """


class OneRun(Method):
    """A method that reads an attribution off the relevance of one plain run."""

    @abstractmethod
    def read(self, images: Float32, relevance: Float32) -> Float32:
        """Return attributions (N, *attribution shape) for images and their relevance."""


class ManyRuns(Method):
    """A method that runs the network on images of its own choice."""

    @abstractmethod
    def attribute(self, runs: Runs) -> Attribution:
        """Explain ``runs.images``."""


def one_map(shape: tuple[int, ...], method: str) -> tuple[int, ...]:
    """Return the shape of an image's one map, (1, H, W).

    Raises
    ------
    ValueError
        If ``shape`` is not an image's, (C, H, W).
    """
    if len(shape) != 3:
        raise ValueError(f"{method} needs images (channels, height, width), not inputs {shape}.")
    return (1, *shape[1:])


def check_count(name: str, value: object) -> None:
    """Raise where ``value`` is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number, not {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}.")


def check_seed(value: object) -> None:
    """Raise where ``value`` is no whole number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"seed must be a whole number, not {value!r}.")
    if value < 0:
        raise ValueError(f"seed must be at least 0, not {value}.")
