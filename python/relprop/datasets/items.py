"""What a dataset is made of: items with their labels, boxes and masks, and what was rejected."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop import images
from relprop.datasets.polygons import filled
from relprop.datasets.run_lengths import RunLengths
from relprop.shown import ShownByShapes

Label: TypeAlias = str | int
"""A class, by its name or its index."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of a photo; ``right`` and ``bottom`` are no longer part of it.

    Raises
    ------
    ValueError
        If a side is not finite or the area is zero.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: Label | None = None

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.right, self.bottom)
        if not all(math.isfinite(side) for side in sides):
            raise ValueError(f"the sides of a box must be finite, not {sides}.")
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError(f"a box must have an area, but its sides are {sides}.")

    @property
    def area(self) -> float:
        """Its width times its height, in square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Mask:
    """Pixels of a photo, in one of three forms.

    ``polygons`` are closed lines x, y, x, y, ... in pixels; ``runs`` are COCO's run lengths;
    ``read`` returns the bytes of an image of numbers, in which the pixels equal to ``value`` are
    the mask, or all that are not zero.
    """

    label: Label | None = None
    polygons: tuple[tuple[float, ...], ...] = ()
    runs: RunLengths | None = None
    read: Callable[[], bytes] | None = None
    value: int | None = None

    def __post_init__(self) -> None:
        if bool(self.polygons) + (self.runs is not None) + (self.read is not None) != 1:
            raise ValueError("a mask is given by polygons, runs or read: by one of them.")

    def pixels(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the mask as bool (height, width).

        Raises
        ------
        OSError
            If its image cannot be read.
        ValueError
            If its form is broken or belongs to a photo of another size.
        """
        if self.polygons:
            return filled(self.polygons, height, width)
        pixels = self._stored()
        if pixels.shape != (height, width):
            raise ValueError(f"the mask has the size {pixels.shape}, the photo {height, width}.")
        return pixels

    def _stored(self) -> NDArray[np.bool_]:
        if self.runs is not None:
            return self.runs.pixels()
        assert self.read is not None
        numbers = images.decode_indices(self.read(), "mask")
        shown = numbers != 0 if self.value is None else numbers == self.value
        return np.asarray(shown, bool)


@dataclass(frozen=True, eq=False, repr=False)
class Item(ShownByShapes):
    """A photo or a ready input of a network, with what is known about it.

    ``key`` is unique in its dataset and stays the same from run to run. One of ``read``, which
    returns the bytes of an image file, and ``array`` is given: uint8 (height, width, 3) or
    (height, width) is a photo, floats (channels, height, width) are a network's input. ``label``
    is the true class. Boxes and masks count in pixels of the upright photo, unless ``size``, the
    (height, width) that the annotation claims, is that of the photo as it is stored.
    """

    key: str
    read: Callable[[], bytes] | None = None
    array: NDArray[Any] | None = None
    label: Label | None = None
    boxes: tuple[Box, ...] = ()
    masks: tuple[Mask, ...] = ()
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.read is None) == (self.array is None):
            raise ValueError(f"{self.key}: an item has either read or array.")


@dataclass(frozen=True)
class Rejected:
    """An item that cannot be used, and why; bytes that are no text are shown as escapes."""

    key: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("key", "reason"):
            shown = getattr(self, name).encode("utf-8", "backslashreplace").decode()
            object.__setattr__(self, name, shown)


class Dataset(Protocol):
    """Items in one stable order; those whose number is known have a length, too.

    Where keys and labels are known before items are read, ``digest()`` returns a hash of them.
    """

    @property
    def name(self) -> str:
        """What it is called in reports."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of their indices; empty where unknown."""

    def __iter__(self) -> Iterator[Item | Rejected]: ...

    def shard(self, index: int, count: int) -> Dataset:
        """Return one of ``count`` disjoint parts that make up the whole."""


def is_photo_array(array: NDArray[Any]) -> bool:
    """Whether an array holds a photo's pixels: uint8 (height, width, 3) or (height, width)."""
    channels = array.ndim == 2 or array.shape[2:] == (3,)
    return array.dtype == np.uint8 and channels and array.size > 0


def check_shard(index: int, count: int) -> None:
    """Raise ValueError unless ``index`` names one of ``count`` parts."""
    if not 0 <= index < count:
        raise ValueError(f"index must be at least 0 and less than count={count}, not {index}.")


def digest_of(known: Iterable[Any]) -> str:
    """Return a short hash of what is known of items before they are read."""
    hashed = hashlib.sha256()
    for each in known:
        hashed.update(repr(each).encode())
    return hashed.hexdigest()[:16]


def main_class(boxes: Iterable[Box]) -> Label | None:
    """Return the class of the largest box, the first of equals; None where there is no box."""
    largest = max(boxes, key=lambda box: box.area, default=None)
    return None if largest is None else largest.label
