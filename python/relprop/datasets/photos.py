"""An item's photo, decoded and upright, with its boxes and masks in the same pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.datasets.items import Box, Item, Mask, is_photo_array
from relprop.datasets.upright import stored_size, upright_box, upright_mask
from relprop.images import decode_image

TOLERANCE = 1.0
"""Pixels by which a box may reach over the photo's edge; it is clipped."""


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright RGB image; ``boxes`` lie in it.

    ``drawn`` are its masks as they are given, for a photo that ``turn``, as EXIF counts, makes
    upright.
    """

    image: Image.Image
    boxes: tuple[Box, ...]
    drawn: tuple[Mask, ...] = ()
    turn: int = 1

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """Return the masks one after the other, bool (height, width) of the upright image.

        Raises
        ------
        OSError, ValueError
            If a mask is broken, or its size is not the photo's.
        """
        size = stored_size(self.image.height, self.image.width, self.turn)
        for mask in self.drawn:
            yield upright_mask(mask.pixels(*size), self.turn)


def open_photo(item: Item) -> Photo:
    """Decode an item's photo and lay its annotation over it.

    An annotation of the size that the photo has in its file is turned as EXIF turns the photo.
    If EXIF turns it by 180 degrees or mirrors it, or it is square, the size is no evidence, and
    the annotation is still taken for one of the stored photo.

    Raises
    ------
    OSError
        If the photo cannot be read.
    ValueError
        If it is broken, its size is not that of the annotation, or a box does not fit.
    """
    image, orientation = _decoded(item)
    height, width = image.height, image.width
    stored = stored_size(height, width, orientation)
    if item.size not in (None, stored, (height, width)):
        raise ValueError(
            f"the annotation is for {_text(item.size)} pixels (height, width), but the photo has "
            f"{_text((height, width))}, or {_text(stored)} before it is turned."
        )
    turn = orientation if item.size == stored else 1
    boxes = (_clipped(upright_box(box, turn, height, width), height, width) for box in item.boxes)
    return Photo(image, tuple(boxes), item.masks, turn)


def _decoded(item: Item) -> tuple[Image.Image, int]:
    if item.read is not None:
        return decode_image(item.read(), item.key)
    assert item.array is not None
    if not is_photo_array(item.array):
        raise ValueError(
            "a photo must be uint8 (height, width, 3) or (height, width), not "
            f"{item.array.dtype} {item.array.shape}."
        )
    return Image.fromarray(item.array).convert("RGB"), 1


def _clipped(box: Box, height: int, width: int) -> Box:
    left, top = max(box.left, 0.0), max(box.top, 0.0)
    right, bottom = min(box.right, float(width)), min(box.bottom, float(height))
    over = max(left - box.left, top - box.top, box.right - right, box.bottom - bottom)
    if over > TOLERANCE or left >= right or top >= bottom:
        raise ValueError(
            f"a box {box.left, box.top, box.right, box.bottom} reaches over the edge of a photo "
            f"of {_text((height, width))} pixels."
        )
    return replace(box, left=left, top=top, right=right, bottom=bottom)


def _text(size: tuple[int, int] | None) -> str:
    return " x ".join(map(str, size or ()))
