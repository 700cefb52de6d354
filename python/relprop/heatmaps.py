"""Relevance as pictures: heatmaps, overlays on the photo, contact sheets.

Colours are symmetric around zero: equal amounts for and against the class are equally strong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from relprop.arrays import to_numpy

COLOR_MAPS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "blue_white_red": (
        (0, 0, 128), (0, 0, 255), (255, 255, 255), (255, 0, 0), (128, 0, 0),
    ),
    "black_body": (
        (255, 255, 255), (0, 255, 255), (0, 0, 255), (0, 0, 0),
        (255, 0, 0), (255, 255, 0), (255, 255, 255),
    ),
    "blue_white_orange": (
        (0, 55, 105), (30, 130, 200), (255, 255, 255), (213, 94, 0), (105, 35, 0),
    ),
}  # fmt: skip
"""Colours at equal steps from -1 to 1. The last map is safe for colour-blind readers."""

_GAP, _TEXT, _LINE = 8, 14, 20
"""Pixels in a contact sheet: between pictures, height of letters, height of a line."""


def pixel_relevance(relevance: ArrayLike | Any) -> NDArray[np.float64]:
    """Sum relevance over channels: (channels, height, width) or (height, width) to the latter.

    Raises
    ------
    TypeError, ValueError
        If the relevance is no array of numbers, of another shape, empty or not finite.
    """
    values = to_numpy(relevance, "relevance").astype(np.float64)
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(
            "relevance must have shape (channels, height, width) or (height, width), not "
            f"{values.shape}; give one sample at a time."
        )
    if not np.isfinite(values).all():
        raise ValueError("relevance holds NaN or infinite values.")
    return values.sum(axis=0) if values.ndim == 3 else values


def heatmap(
    relevance: ArrayLike | Any, *, cmap: str = "blue_white_red", bound: float | None = None
) -> Image.Image:
    """Paint the relevance of one sample.

    Parameters
    ----------
    relevance
        An array of numpy, torch or cupy of shape (channels, height, width) or (height, width);
        channels are summed.
    cmap
        A name in ``COLOR_MAPS``.
    bound
        The relevance that gets the strongest colour; by default the sample's largest. Give the
        same one to several samples to compare them.

    Returns
    -------
    PIL.Image.Image
        RGB, a pixel for each of the relevance's.

    Raises
    ------
    TypeError, ValueError
        If the relevance is no array of numbers, of another shape or not finite, there is no such
        map of colours, or the bound is not positive and finite.
    """
    return Image.fromarray(_colors(_scaled(relevance, bound), cmap).round().astype(np.uint8))


def overlay(
    relevance: ArrayLike | Any,
    photo: Image.Image | NDArray[np.uint8],
    *,
    cmap: str = "blue_white_red",
    bound: float | None = None,
) -> Image.Image:
    """Paint the relevance over the photo in grey, of the same height and width.

    A map that is white at zero dyes a light photo, one that is black at zero glows on a dark one.

    Parameters
    ----------
    relevance, cmap, bound
        As for :func:`heatmap`.
    photo
        What the network saw: an image, or an array (height, width) or (height, width, 3), uint8.

    Returns
    -------
    PIL.Image.Image
        RGB, of the photo's size.

    Raises
    ------
    TypeError, ValueError
        As :func:`heatmap` does, and if photo and relevance differ in height or width.
    """
    values = _scaled(relevance, bound)
    image = photo if isinstance(photo, Image.Image) else Image.fromarray(np.asarray(photo))
    grey = np.asarray(image.convert("L"), dtype=np.float64)[..., None]
    if grey.shape[:2] != values.shape:
        raise ValueError(
            f"the photo is {grey.shape[0]} x {grey.shape[1]} and the relevance "
            f"{values.shape[0]} x {values.shape[1]}; give the part that the network saw."
        )
    colors = _colors(values, cmap)
    if _zero(cmap) == (255, 255, 255):
        pixels = (127.5 + grey / 2) * colors / 255
    else:
        pixels = 255 - (255 - grey / 2) * (255 - colors) / 255
    return Image.fromarray(pixels.round().astype(np.uint8))


def contact_sheet(
    pictures: Sequence[Sequence[Image.Image]], rows: Sequence[str], columns: Sequence[str]
) -> Image.Image:
    """Lay pictures out in a grid, with a line of text above each row and each column.

    Parameters
    ----------
    pictures
        Row by row, each with as many pictures as there are ``columns``.
    rows, columns
        The labels, cut where they are too long.

    Raises
    ------
    ValueError
        If there are no labels, or not as many as there are rows or columns of pictures.
    """
    if not rows or not columns or len(pictures) != len(rows):
        raise ValueError(f"{len(pictures)} rows of pictures do not fit {len(rows)} labels.")
    if any(len(row) != len(columns) for row in pictures):
        lengths = [len(row) for row in pictures]
        raise ValueError(f"every row needs {len(columns)} pictures, not {lengths}.")
    width = max(picture.width for row in pictures for picture in row)
    heights = [max(picture.height for picture in row) for row in pictures]
    total = _GAP + len(columns) * (width + _GAP)
    sheet = Image.new("RGB", (total, _LINE + sum(_LINE + h + _GAP for h in heights)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT)
    lefts = [_GAP + i * (width + _GAP) for i in range(len(columns))]
    for left, label in zip(lefts, columns, strict=True):
        draw.text((left, 2), _cut(label, width, font), "black", font)
    top = _LINE
    for row, label, height in zip(pictures, rows, heights, strict=True):
        draw.text((_GAP, top + 2), _cut(label, total - 2 * _GAP, font), "black", font)
        for left, picture in zip(lefts, row, strict=True):
            sheet.paste(picture, (left, top + _LINE))
        top += _LINE + height + _GAP
    return sheet


def _scaled(relevance: ArrayLike | Any, bound: float | None) -> NDArray[np.float64]:
    """Pixel relevance from -1 to 1."""
    values = pixel_relevance(relevance)
    if bound is None:
        bound = float(np.abs(values).max()) or 1.0  # all zero: any bound will do
    elif not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"bound must be positive and finite, not {bound}.")
    return np.clip(values / bound, -1.0, 1.0)


def _colors(values: NDArray[np.float64], cmap: str) -> NDArray[np.float64]:
    table = np.array(_table(cmap), dtype=np.float64)
    steps = np.linspace(-1.0, 1.0, len(table))
    return np.stack([np.interp(values, steps, channel) for channel in table.T], axis=-1)


def _zero(cmap: str) -> tuple[int, int, int]:
    table = _table(cmap)
    return table[len(table) // 2]


def _table(cmap: str) -> tuple[tuple[int, int, int], ...]:
    if cmap not in COLOR_MAPS:
        raise ValueError(f"cmap must be one of {', '.join(COLOR_MAPS)}, not {cmap!r}.")
    return COLOR_MAPS[cmap]


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten a label to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
