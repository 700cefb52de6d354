"""Cuttings: ways of cutting a sample into the regions that are taken from it, by their words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from relprop.datasets import Sample
from relprop.errors import MissingAnnotation
from relprop.evaluation.segments import NO_REGION, Labels, grid, masks, superpixels
from relprop.preprocessing import Preprocessing

SUPERPIXELS = 500
"""About how many superpixels an image has, where nobody says."""

FORMS = "a side in pixels such as 9, pixels, superpixels, superpixels:N or masks"
"""The words that :func:`cutting_of` reads, as error texts list them."""


class Cutting(Protocol):
    """A way of cutting samples into regions."""

    @property
    def word(self) -> str:
        """Its name with its parameters, as :func:`cutting_of` reads it."""

    def labels(self, sample: Sample) -> Labels:
        """Return each pixel's region, int32 (H, W).

        Raises
        ------
        ValueError
            If the sample cannot be cut.
        """


@dataclass(frozen=True)
class Squares:
    """Squares of ``side`` pixels; those at the right and at the bottom may be smaller."""

    side: int = 9

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side must be at least 1, not {self.side}.")

    @property
    def word(self) -> str:
        """The side, or ``pixels`` where it is 1."""
        return "pixels" if self.side == 1 else str(self.side)

    def labels(self, sample: Sample) -> Labels:
        height, width = sample.pixels.shape[-2:]
        return _grid(height, width, self.side)


@dataclass(frozen=True)
class Superpixels:
    """About ``count`` parts of one size each, cut along edges (SLIC).

    Colours are those of the photo, where ``preprocessing`` tells how to get them back from the
    network's input; else the input's.
    """

    count: int = SUPERPIXELS
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}.")

    @property
    def word(self) -> str:
        """``superpixels:N``."""
        return f"superpixels:{self.count}"

    def labels(self, sample: Sample) -> Labels:
        known = self.preprocessing
        if known is None or known.channel_order == "grey":
            return superpixels(sample.pixels, self.count)
        return superpixels(_photo(sample.pixels, known), self.count)


@dataclass(frozen=True)
class Masks:
    """The sample's own masks, the first where they overlap; other pixels are never taken."""

    word: str = "masks"

    def labels(self, sample: Sample) -> Labels:
        if not sample.masks:
            raise MissingAnnotation(f"{sample.key}: it has no masks.")
        return masks(sample.masks, overlap="first", empty="drop")


def cutting_of(word: str, preprocessing: Preprocessing | None = None) -> Cutting:
    """Make the cutting that the command line's word names.

    Parameters
    ----------
    word
        ``"9"`` for squares of 9 pixels, ``"pixels"``, ``"superpixels"``, ``"superpixels:200"`` or
        ``"masks"``.
    preprocessing
        The model's.

    Raises
    ------
    ValueError
        If the word names none.
    """
    name, colon, number = word.partition(":")
    if word == "pixels":
        return Squares(1)
    if word == "masks":
        return Masks()
    if word == "superpixels":
        return Superpixels(preprocessing=preprocessing)
    if name == "superpixels" and _positive(number):
        return Superpixels(int(number), preprocessing)
    if not colon and _positive(name):
        return Squares(int(name))
    raise ValueError(f"regions must be {FORMS}, not {word!r}.")


def number_of_regions(cutting: Cutting, height: int, width: int) -> int | None:
    """Count the regions of an image, where that does not depend on what it shows."""
    if not isinstance(cutting, Squares):
        return None
    return int(_grid(height, width, cutting.side).max()) - NO_REGION


@lru_cache(maxsize=4)
def _grid(height: int, width: int, side: int) -> Labels:
    labels = grid(height, width, side)
    labels.setflags(write=False)
    return labels


def _positive(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0


def _photo(pixels: NDArray[np.float32], known: Preprocessing) -> NDArray[np.uint8]:
    """The photo of an input, uint8 RGB (H, W, 3)."""
    per_channel = (-1, 1, 1)
    mean, std = (
        np.asarray(values, np.float32).reshape(per_channel) for values in (known.mean, known.std)
    )
    values = np.clip(np.rint(pixels * std + mean), 0, 255).astype(np.uint8)
    if known.channel_order == "bgr":
        values = values[::-1]
    return np.ascontiguousarray(values.transpose(1, 2, 0))
