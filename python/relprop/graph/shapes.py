"""Shapes, which leave the batch axis out, and what is required of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Shape = tuple[int, ...]
Pair = tuple[int, int]
Sizes = tuple[int, ...]
"""A number per spatial axis."""
Padding = tuple[Pair, ...]
"""Before and after, per spatial axis."""

MOST_VALUES = 2**31 - 1
"""Of one node and sample: the core counts them in 32 bits."""


def require(condition: bool, text: str) -> None:
    """Raise a ValueError with a text unless a condition holds."""
    if not condition:
        raise ValueError(text)


def window_count(
    size: int, kernel: int, stride: int, pads: Pair, dilation: int, ceil_mode: bool
) -> int:
    """Return how many windows lie along one axis of ``size``, as torch and Caffe count them.

    Rounded up, a window that is too large by less than a stride is one all the same.

    Raises
    ------
    ValueError
        If not even one fits, or a setting is out of range.
    """
    require(
        min(kernel, stride, dilation) >= 1 and min(pads) >= 0,
        f"kernel={kernel}, stride={stride} and dilation={dilation} must be at least 1 and "
        f"padding {pads} at least 0.",
    )
    span = size + sum(pads) - dilation * (kernel - 1) - 1
    if span < 0 and not (ceil_mode and span > -stride):
        raise ValueError(
            f"a window of {dilation * (kernel - 1) + 1} does not fit an axis of {size} "
            f"padded by {pads}."
        )
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + pads[0]:
        count -= 1  # the last window must start on a real input or on the leading padding
    return count


_LAYOUTS = {
    1: "(channels, length)",
    2: "(channels, height, width)",
    3: "(channels, depth, height, width)",
}
"""What an input with so many spatial axes is."""


def spatial_sizes(operator: str, shape: Shape, axes: int = 2) -> Shape:
    """Return the sizes of an input's spatial axes.

    Raises
    ------
    ValueError
        If there are not so many of them, or more than three.
    """
    require(axes in _LAYOUTS, f"{operator} over {axes} spatial axes is not supported.")
    require(
        len(shape) == axes + 1,
        f"{operator} needs an input of shape {_LAYOUTS[axes]}, not {shape}.",
    )
    return shape[1:]
