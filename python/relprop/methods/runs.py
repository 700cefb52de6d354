"""Runs: the explained network as a method sees it, on any number of images in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from relprop.targets import Start

Float32 = NDArray[np.float32]

Images: TypeAlias = Iterable[tuple[int, Float32]]
"""Images to run, each after the index of the sample whose target it has."""

AT_ONCE, BYTES_AT_ONCE = 64, 2**26
"""How many images, of how many bytes, go into one run at most."""


@dataclass(frozen=True)
class Runs:
    """The samples that a method explains, and the plain runs that it makes of others.

    What is explained, f, is the target's score, the sum of the scores that a mask selects, or that
    of the scores times the relevance that was given. It is fixed for each sample, whatever the
    images that a method runs in its place.

    Attributes
    ----------
    images
        (N, *shape).
    explained
        f of the images, (N,).
    """

    images: Float32
    explained: NDArray[np.float64]
    start: Start
    forward: Callable[[Float32], Float32]
    """Images to their scores, flat."""
    backward: Callable[[Float32, Start], Float32]
    """Images and what is explained of each to their relevance, shaped as they are."""

    def relevance(self, images: Images) -> Iterator[tuple[int, Float32]]:
        """Yield the index and the relevance, under the composite's rules, of each image."""
        for of, batch in self._batches(images):
            yield from zip(of, self.backward(batch, self.start.repeated(of)), strict=True)

    def values(self, images: Images) -> Iterator[tuple[int, float]]:
        """Yield the index and f of each image."""
        for of, batch in self._batches(images):
            values = self.start.repeated(of).explained(self.forward(batch))
            yield from zip(of, values.tolist(), strict=True)

    def _batches(self, images: Images) -> Iterator[tuple[list[int], Float32]]:
        size = max(self.images[0].nbytes, 1) if len(self.images) else 1
        at_once = max(1, min(AT_ONCE, BYTES_AT_ONCE // size))
        left = iter(images)
        while batch := list(islice(left, at_once)):
            yield [index for index, _ in batch], np.stack([image for _, image in batch])
