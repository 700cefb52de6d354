"""Turning what was drawn on a photo as it is stored, the way the photo itself is turned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from relprop.datasets.items import Box

_STEPS = {  # exchange x and y, then mirror x, mirror y
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""By EXIF's orientation."""


def stored_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return the (height, width) that an upright photo has in its file."""
    return (width, height) if _STEPS[orientation][0] else (height, width)


def upright_box(box: Box, orientation: int, height: int, width: int) -> Box:
    """Turn a box; ``height`` and ``width`` are the upright photo's."""
    exchange, mirror_x, mirror_y = _STEPS[orientation]
    left, top, right, bottom = box.left, box.top, box.right, box.bottom
    if exchange:
        left, top, right, bottom = top, left, bottom, right
    if mirror_x:
        left, right = width - right, width - left
    if mirror_y:
        top, bottom = height - bottom, height - top
    return replace(box, left=left, top=top, right=right, bottom=bottom)


def upright_mask(mask: NDArray[np.bool_], orientation: int) -> NDArray[np.bool_]:
    """Turn a mask, bool (height, width) of the stored photo."""
    exchange, mirror_x, mirror_y = _STEPS[orientation]
    mask = mask.T if exchange else mask
    mask = mask[:, ::-1] if mirror_x else mask
    return mask[::-1] if mirror_y else mask
