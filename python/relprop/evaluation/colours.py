"""Colours in the units of a network's input, where black and white are the bounds of a channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop.preprocessing import Preprocessing

Colour: TypeAlias = float | tuple[float, ...]
"""A number for all channels or one for each, in the units of the network's input."""


@dataclass(frozen=True)
class Colours:
    """What black, white and the mean colour become in a network's input, for each channel.

    ``mean`` is None where it is not known.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high") if self.mean is None else ("low", "high", "mean"):
            value = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, value)
            if not value or len(value) != len(self.low) or not all(map(math.isfinite, value)):
                raise ValueError(
                    f"{name} must be a finite number for each of {len(self.low)} channels, not "
                    f"{value}."
                )
        if any(low > high for low, high in zip(self.low, self.high)):
            raise ValueError(f"low must be <= high, not {self.low} and {self.high}.")

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Colours:
        """Return those of a preprocessing, whose mean colour becomes zero."""
        low, high = preprocessing.bounds()
        return cls(low, high, (0.0,) * len(low))

    @classmethod
    def of_bounds(cls, bounds: tuple[Colour, Colour], channels: int) -> Colours:
        """Return those of an input between ``low`` and ``high``, whose mean is not known.

        Raises
        ------
        ValueError
            If bounds are no pair of colours of so many channels, or ``low`` is above ``high``.
        """
        if len(bounds) != 2:
            raise ValueError(f"bounds must be a pair (low, high), not {len(bounds)} values.")
        low, high = (np.atleast_1d(np.asarray(bound, np.float64)) for bound in bounds)
        for name, bound in (("low", low), ("high", high)):
            if bound.shape not in ((1,), (channels,)):
                raise ValueError(
                    f"bounds must be numbers or one for each of {channels} channels; {name} has "
                    f"shape {bound.shape}."
                )
        wide = (tuple(np.broadcast_to(bound, (channels,)).tolist()) for bound in (low, high))
        return cls(*wide)


def checked_colour(value: Any, name: str) -> Colour:
    """Return a finite number as a float, or several as a tuple of floats.

    Raises
    ------
    TypeError
        If it is neither; the message calls it ``name``.
    ValueError
        If it is not finite.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.ndim > 1 or not array.size:
        raise TypeError(f"{name} must be a number or one for each channel, not {value!r}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, not {value!r}.")
    return tuple(map(float, array)) if array.ndim else float(array)


def per_channel(colour: Colour, channels: int) -> NDArray[np.float64]:
    """Return a colour as an array that fits (C, H, W), (C, 1, 1).

    Raises
    ------
    ValueError
        If it has another number of channels.
    """
    values = np.atleast_1d(np.asarray(colour, np.float64))
    if len(values) not in (1, channels):
        raise ValueError(f"a colour must have {channels} channels, not {len(values)}.")
    return np.broadcast_to(values, (channels,)).reshape(-1, 1, 1)


def spelled(colour: Colour) -> str:
    """Return the word of a colour, ``"0.5"`` or ``"0.1/0.2/0.3"``."""
    values = colour if isinstance(colour, tuple) else (colour,)
    return "/".join(f"{float(value)!r}".removesuffix(".0") for value in values)


def read_colour(word: str) -> Colour:
    """Return the colour that :func:`spelled` spells so; a ValueError where it is none."""
    values = tuple(map(float, word.split("/")))
    return values if len(values) > 1 else values[0]
