"""Reading photos: any file of a known format becomes an upright 8-bit RGB image, or an error."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 80_000_000
"""Larger images are refused before they are decoded: a small file can hold a huge one."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""What is read. Other decoders of Pillow stay shut: some run programs (EPS), few are tested."""


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _upright_rgb(image)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise ValueError(f"{path}: not an image in one of the formats {known}.") from None
    except PermissionError:
        raise
    except Exception as error:  # decoders raise anything on broken data
        raise ValueError(f"{path}: cannot be read as an image: {error}") from None


def _upright_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} allowed.")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones append previews to a JPEG, as MPO frames
        raise ValueError(f"it holds {frames} frames or pages; give a single image.")
    image.load()
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 or 16 bits.")
    if "transparency" in image.info or image.getbands()[-1] in ("A", "a"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels are beyond 16 bits; save it with 8 or 16 bits.")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
