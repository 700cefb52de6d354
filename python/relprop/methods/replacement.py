"""Replacement: what stands in place of an image, or of a part of it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.arrays import to_numpy

Values = Any
"""A number, one for each channel, or an array of a sample's shape; in the input's units."""


@dataclass(frozen=True, repr=False)
class Replacement:
    """Values in place of an image's: a number (shape ``()``), one per channel, or an array."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def read(cls, values: Values, name: str) -> Replacement:
        """Check values; ``name`` is what the error calls them.

        Raises
        ------
        TypeError, ValueError
            If they are no numbers, or not finite.
        """
        if isinstance(values, Replacement):
            return values
        array = to_numpy(values, name).astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite.")
        return cls(array.shape, array.tobytes())

    def image(self, shape: tuple[int, ...], name: str) -> NDArray[np.float32]:
        """Return it as an array of ``shape``, a sample's without the batch axis.

        Raises
        ------
        ValueError
            If it is of another shape, or has another number of channels.
        """
        array = np.frombuffer(self.data, np.float32).reshape(self.shape)
        if self.shape in ((), shape):
            return np.array(np.broadcast_to(array, shape))
        if self.shape == shape[:1]:
            return np.array(np.broadcast_to(array.reshape(-1, *[1] * (len(shape) - 1)), shape))
        raise ValueError(
            f"{name} must be a number, one for each of {shape[0]} channels or an array of shape "
            f"{shape}, not of shape {self.shape}."
        )

    def __repr__(self) -> str:
        array = np.frombuffer(self.data, np.float32)
        if len(self.shape) < 2 and array.size <= 4:
            shown = [f"{value:g}" for value in array]
            return f"({', '.join(shown)})" if self.shape else shown[0]
        return f"array of {self.shape}, {sha256(self.data).hexdigest()[:16]}"
