"""Occlusion: what the score loses where a window of the image is covered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, product

import numpy as np

from relprop.methods.method import Attribution, Float32, ManyRuns, check_count, one_map
from relprop.methods.replacement import Replacement, Values
from relprop.methods.runs import Runs

Sides = int | tuple[int, int]


@dataclass(frozen=True)
class Occlusion(ManyRuns):
    """For every pixel the mean loss over the windows that cover it (Zeiler and Fergus 2014).

    The loss of a window is f(x) less f of x with ``value`` in all channels of the window.
    Windows lie ``stride`` apart from the upper left corner on, the last ones are cut off at the
    border, so that every pixel is covered.

    ``window`` and ``stride`` are a number of pixels or one for height and one for width, a stride
    at most its window; ``value`` is a number, one per channel or an array of a sample's shape, in
    the units of the network's input.
    """

    window: Sides = 16
    stride: Sides = 8
    value: Values = 0.0

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            sides = getattr(self, name)
            if isinstance(sides, int | np.integer):
                sides = (sides, sides)
            if not isinstance(sides, tuple | list) or len(sides) != 2:
                raise TypeError(f"{name} must be a whole number or two, not {sides!r}.")
            for side in sides:
                check_count(name, side)
            object.__setattr__(self, name, tuple(map(int, sides)))
        assert isinstance(self.window, tuple) and isinstance(self.stride, tuple)
        if any(step > side for step, side in zip(self.stride, self.window)):
            raise ValueError(
                f"stride must be at most the window, {self.window}, not {self.stride}: pixels "
                "between windows would be covered by none."
            )
        object.__setattr__(self, "value", Replacement.read(self.value, "value"))

    def attribution_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (1, H, W) for (C, H, W), in which the window must fit."""
        attribution = one_map(shape, "occlusion")
        assert isinstance(self.window, tuple)
        if any(side > size for side, size in zip(self.window, shape[1:])):
            raise ValueError(f"window must fit into the image, {shape[1:]}, not {self.window}.")
        self.value.image(shape, "value")
        return attribution

    def attribute(self, runs: Runs) -> Attribution:
        """Cover every window of every sample."""
        windows = self.windows(*runs.images.shape[2:])
        value = self.value.image(runs.images.shape[1:], "value")
        lost = np.zeros((len(runs.images), 1, *runs.images.shape[2:]))
        covered = np.zeros(runs.images.shape[2:])
        for window in windows:
            covered[window] += 1
        found = runs.values(_covered(runs.images, windows, value))
        for (i, f), window in zip(found, cycle(windows)):
            lost[i, 0][window] += runs.explained[i] - f
        return Attribution(lost / covered)

    def windows(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Return the rows and columns of every window of an image of this size."""
        assert isinstance(self.window, tuple) and isinstance(self.stride, tuple)
        axes = [
            [slice(step * k, step * k + side) for k in range(-((side - size) // step) + 1)]
            for size, side, step in zip((height, width), self.window, self.stride)
        ]
        return [(rows, columns) for rows, columns in product(*axes)]


def _covered(
    images: Float32, windows: list[tuple[slice, slice]], value: Float32
) -> Iterator[tuple[int, Float32]]:
    """Each sample's images, one window covered in each."""
    for i, image in enumerate(images):
        for rows, columns in windows:
            copy = image.copy()
            copy[:, rows, columns] = value[:, rows, columns]
            yield i, copy
