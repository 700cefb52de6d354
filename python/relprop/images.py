"""Reading photos: any file of a known format becomes an upright 8-bit RGB image, or an error."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 80_000_000
"""Larger images are refused before they are decoded: a small file can hold a huge one."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""What is read. Other decoders of Pillow stay shut: some run programs (EPS), few are tested."""

_OPENING = threading.Lock()  # catch_warnings restores the filters of another thread, too

T = TypeVar("T")


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as 8-bit RGB, turned upright by its EXIF orientation.

    Greyscale, palette, 16-bit and CMYK images are converted; transparent parts are laid over
    white. Animations and files of several pages are refused.

    Raises
    ------
    OSError
        If the file is missing or may not be read.
    ValueError
        If it is no image of a known format, broken, animated or larger than ``MAX_PIXELS``.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if not path.is_file():
        raise ValueError(f"{path}: not a regular file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty.")
    return _read(path, str(path), upright_rgb)


def decode_image(data: bytes, name: str = "image") -> tuple[Image.Image, int]:
    """Read the bytes of an image file as `read_image` does; errors call it ``name``.

    Also return how the file tells to turn it, 1 (not at all) to 8, as EXIF counts.

    Raises
    ------
    ValueError
        If it is no image of a known format, broken, animated or larger than ``MAX_PIXELS``.
    """
    return _decode(data, name, lambda image: (upright_rgb(image), _orientation(image)))


def decode_indices(data: bytes, name: str = "image") -> NDArray[np.uint8]:
    """Read the bytes of a palette or 8-bit grey image as its numbers, uint8 (height, width).

    This is how class and object numbers are stored as an image; nothing is turned or converted.

    Raises
    ------
    ValueError
        As of `decode_image`, and if the image has other pixels.
    """
    return _decode(data, name, _indices)


def _decode(data: bytes, name: str, take: Callable[[Image.Image], T]) -> T:
    if not data:
        raise ValueError(f"{name}: the file is empty.")
    return _read(io.BytesIO(data), name, take)


def _read(source: Path | io.BytesIO, name: str, take: Callable[[Image.Image], T]) -> T:
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(source, formats=FORMATS)
        with opened as image:
            return take(image)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise ValueError(f"{name}: not an image in one of the formats {known}.") from None
    except PermissionError:
        raise
    except Exception as error:  # decoders raise anything on broken data
        raise ValueError(f"{name}: cannot be read as an image: {error}") from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turn an opened image upright and convert it to 8-bit RGB, as `read_image` does.

    Raises
    ------
    ValueError
        If the image is animated, larger than ``MAX_PIXELS`` or of pixels without a known range.
    """
    _check_size(image)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones append previews to a JPEG, as MPO frames
        raise ValueError(f"it holds {frames} frames or pages; give a single image.")
    image.load()
    return rgb(ImageOps.exif_transpose(image))


def _orientation(image: Image.Image) -> int:
    stored = image.getexif().get(ExifTags.Base.Orientation)
    return next((known for known in range(1, 9) if known == stored), 1)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} allowed.")


def _indices(image: Image.Image) -> NDArray[np.uint8]:
    _check_size(image)
    if image.mode not in ("P", "L"):
        raise ValueError(f"numbers need a palette or 8-bit grey image, not mode {image.mode}.")
    return np.asarray(image)


def rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB, as `read_image` does.

    Raises
    ------
    ValueError
        If its pixels have no known range.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 or 16 bits.")
    if "transparency" in image.info or image.getbands()[-1] in ("A", "a"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels are beyond 16 bits; save it with 8 or 16 bits.")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
