"""Segments: the regions that are taken from an image one after the other.

Regions are int32 labels (H, W), numbered from 0 without a gap; pixels of no region are -1 and are
never taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.optional import import_optional

Labels: TypeAlias = NDArray[np.int32]
Pixels: TypeAlias = NDArray[np.intp]
"""Places of pixels in an image whose rows are joined: ``row * width + column``."""

NO_REGION = -1
"""The label of a pixel that belongs to no region."""


def grid(height: int, width: int, region: int) -> Labels:
    """Cut an image into squares that do not overlap, row by row from the upper left.

    Where the height or the width does not divide, the last row or column holds what is left: an
    image of 227 pixels has 26 columns of regions of 9, the last 2 pixels wide. An image smaller
    than a region is one region.

    Parameters
    ----------
    height, width
        Of the image, in pixels.
    region
        The side of a square; 1 makes every pixel a region.

    Raises
    ------
    ValueError
        If one of them is less than 1.
    """
    for name, value in (("height", height), ("width", width), ("region", region)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}.")
    rows, columns = np.arange(height) // region, np.arange(width) // region
    labels: Labels = (rows[:, None] * (columns[-1] + 1) + columns).astype(np.int32)
    return labels


def superpixels(
    image: NDArray[Any], count: int, *, compactness: float = 10.0, sigma: float = 0.0
) -> Labels:
    """Cut an image along its edges into connected parts of about one size (SLIC).

    Achanta et al. 2012, as scikit-image has it.

    Parameters
    ----------
    image
        A photo, uint8 (H, W, 3), whose colours are compared in the Lab space, such as
        :meth:`relprop.Preprocessing.view` returns; or a network's input, floats (C, H, W), which is
        scaled to 0 to 1 and compared as it is.
    count
        About how many.
    compactness
        How much nearness counts beside colour.
    sigma
        Width of a Gaussian that smooths the image before, in pixels.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    TypeError, ValueError
        If the image is neither, or the count is less than 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}.")
    image = np.asarray(image)
    photo = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not photo and not (image.dtype.kind == "f" and image.ndim == 3):
        raise TypeError(
            "image must be uint8 of shape (height, width, 3) or floating point of shape (channels, "
            f"height, width), not {image.dtype} of {image.shape}."
        )
    if not np.isfinite(image).all():
        raise ValueError("image must be finite.")
    found = import_optional("skimage", "evaluation", "superpixels").segmentation.slic(
        image,
        n_segments=count,
        compactness=compactness,
        sigma=sigma,
        convert2lab=photo,
        channel_axis=2 if photo else 0,
        start_label=0,
    )
    numbers = np.unique(found, return_inverse=True)[1]
    labels: Labels = numbers.reshape(found.shape).astype(np.int32)
    return labels


def masks(
    given: Sequence[NDArray[np.bool_]],
    *,
    overlap: Literal["refuse", "first"] = "refuse",
    empty: Literal["refuse", "drop"] = "refuse",
) -> Labels:
    """Make a region of every mask, numbered in their order; what none covers belongs to no region.

    Parameters
    ----------
    given
        Masks, each bool (H, W).
    overlap
        ``"refuse"`` masks that share pixels, or give these to the ``"first"`` of them.
    empty
        ``"refuse"`` masks that have no pixel (of their own), or ``"drop"`` them; the others are
        numbered on.

    Raises
    ------
    TypeError, ValueError
        If there is no mask, a mask is not bool or of another shape, or one is refused.
    """
    if overlap not in ("refuse", "first"):
        raise ValueError(f'overlap must be "refuse" or "first", not {overlap!r}.')
    if empty not in ("refuse", "drop"):
        raise ValueError(f'empty must be "refuse" or "drop", not {empty!r}.')
    if not len(given):
        raise ValueError("masks must be at least one, not none.")
    labels = np.full(np.shape(given[0]), NO_REGION, np.int32)
    number = 0
    for index, mask in enumerate(given):
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise TypeError(f"masks[{index}] must be bool, not {mask.dtype}.")
        if mask.ndim != 2 or mask.shape != labels.shape:
            raise ValueError(
                f"masks must all have one shape (height, width); masks[{index}] is {mask.shape}, "
                f"the first {labels.shape}."
            )
        free = mask & (labels == NO_REGION)
        if overlap == "refuse" and (shared := int(mask.sum() - free.sum())):
            raise ValueError(
                f"masks must not overlap; masks[{index}] shares {shared} pixels with those before "
                'it (overlap="first" gives these to the first).'
            )
        if not free.any():
            if empty == "drop":
                continue
            raise ValueError(
                f'masks[{index}] must have a pixel of its own, not none (empty="drop" drops it).'
            )
        labels[free] = number
        number += 1
    return labels


class Regions:
    """The pixels of every region of an image, by its number.

    Parameters
    ----------
    labels
        Whole numbers (H, W).

    Raises
    ------
    TypeError, ValueError
        If they are not whole numbers (H, W), there is no region, or a number is missing.
    """

    def __init__(self, labels: ArrayLike) -> None:
        given = np.asarray(labels)
        if given.dtype.kind not in "iu":
            raise TypeError(f"labels must be whole numbers, not {given.dtype}.")
        if given.ndim != 2 or given.size == 0:
            raise ValueError(f"labels must have shape (height, width), not {given.shape}.")
        least, largest = int(given.min()), int(given.max())
        if least < NO_REGION:
            raise ValueError(f"labels must be at least -1, not {least}.")
        if largest == NO_REGION:
            raise ValueError("labels must name at least one region, not only -1.")
        if largest >= given.size:
            raise ValueError(
                f"labels must be numbered from 0 without a gap; there are {given.size} pixels and "
                f"a region {largest}."
            )
        self.labels: Labels = np.ascontiguousarray(given, np.int32)
        flat = self.labels.reshape(-1)
        counts = np.bincount(flat + 1, minlength=largest + 2)
        self.sizes: NDArray[np.int64] = counts[1:].astype(np.int64)
        if missing := np.flatnonzero(self.sizes == 0)[:1].tolist():
            raise ValueError(
                f"labels must be numbered from 0 without a gap; region {missing[0]} of "
                f"{largest + 1} has no pixel."
            )
        self._sorted: Pixels = np.argsort(flat, kind="stable")
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self.sizes)

    def pixels(self, region: int) -> Pixels:
        """Return the places of a region's pixels, in rising order."""
        return self._sorted[self._ends[region] : self._ends[region + 1]]
