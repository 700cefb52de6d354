"""COCO's masks by run lengths: down the columns, the lengths of runs of 0, 1, 0, 1, ..."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relprop.images import MAX_PIXELS


@dataclass(frozen=True)
class RunLengths:
    """A mask of (``height``, ``width``) pixels; ``counts`` as numbers or as COCO's text."""

    height: int
    width: int
    counts: tuple[int, ...] | str

    def pixels(self) -> NDArray[np.bool_]:
        """Return the mask, bool (height, width).

        Raises
        ------
        ValueError
            If the runs do not fill the mask exactly, or the text is broken.
        """
        size = self.height * self.width
        if not (self.height > 0 and self.width > 0 and size <= MAX_PIXELS):
            raise ValueError(f"run lengths cannot fill a mask of {self.height} x {self.width}.")
        counts = _from_text(self.counts) if isinstance(self.counts, str) else list(self.counts)
        if any(not 0 <= n <= size for n in counts) or sum(counts) != size:
            raise ValueError(f"run lengths do not fill a mask of {self.height} x {self.width}.")
        pixels = np.repeat(np.arange(len(counts)) % 2, counts).reshape(self.width, self.height)
        return np.asarray(pixels.T, bool)


def _from_text(text: str) -> list[int]:
    """Each number is written as digits of 5 bits, the lowest first, in characters from "0" on.

    Bit 5 says that more digits follow, bit 4 of the last digit is the sign. From the fourth
    number on, the difference to the last but one is written.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 30:
            raise ValueError("the text of run lengths is broken.")
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise ValueError("the text of run lengths is cut off.")
    return counts
