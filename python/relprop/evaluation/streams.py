"""Random numbers that belong to something: an image, a repeat, a purpose."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stream:
    """A source of random numbers that depends on a seed and on names, and on nothing else.

    Neither the order in which streams are used nor how much was drawn from another one shows in
    what is drawn, so that no result depends on batches, workers or the order of items.

    >>> Stream(0, ("photo.jpg", 3)).child("order").generator().random(2)
    """

    seed: int
    names: tuple[str | int, ...] = ()

    def child(self, *names: str | int) -> Stream:
        """Return the stream of a part of what this one belongs to."""
        return Stream(self.seed, (*self.names, *names))

    def generator(self) -> np.random.Generator:
        """Return the stream's generator, at its beginning."""
        told = repr((int(self.seed), tuple(map(_plain, self.names)))).encode()
        key = int.from_bytes(hashlib.sha256(told).digest()[:16], "little")
        return np.random.Generator(np.random.Philox(key=key))


def _plain(name: str | int) -> str | int:
    return name if isinstance(name, str) else int(name)
