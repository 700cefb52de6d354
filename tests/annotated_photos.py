"""Small photos, made on the fly: what is drawn on them shows where its box must land."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from relprop.datasets import Item, Rejected

STORED = {  # how a photo is stored that EXIF turns upright by this orientation
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, *range(2, pixels.ndim)),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, *range(2, pixels.ndim)),
    8: lambda pixels: np.rot90(pixels, -1),
}


def square(height: int, width: int, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A black picture with a white rectangle."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top:bottom, left:right] = 255
    return pixels


def encoded(pixels: np.ndarray, form: str = "PNG", orientation: int = 1) -> bytes:
    """The file of a picture that is upright as given, but stored as the orientation tells."""
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    file = io.BytesIO()
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    Image.fromarray(stored).save(
        file, form, exif=exif, **({"quality": 95} if form == "JPEG" else {})
    )
    return file.getvalue()


def photo(height: int = 6, width: int = 8, color: int = 128) -> bytes:
    return encoded(np.full((height, width, 3), color, np.uint8), "JPEG")


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is set, the last two exclusive."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def items(found: object) -> list[Item]:
    """All of a dataset, none of which may be rejected."""
    listed = list(found)  # type: ignore[call-overload]
    assert [each for each in listed if isinstance(each, Rejected)] == []
    return listed


def rejected(found: object) -> dict[str, str]:
    """The reasons for those of a dataset that were rejected, by key."""
    return {each.key: each.reason for each in found if isinstance(each, Rejected)}  # type: ignore[attr-defined]


def reader(data: bytes) -> Callable[[], bytes]:
    return lambda: data
