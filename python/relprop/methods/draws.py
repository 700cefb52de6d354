"""Random numbers that belong to a sample: the same whatever batch, place or run it is in."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def generator_of(purpose: str, seed: int, sample: NDArray[np.float32]) -> np.random.Generator:
    """Return a generator keyed by what it is for, the seed, and the sample's shape and values."""
    key = blake2b(f"{purpose} {seed} {sample.shape}".encode(), digest_size=16)
    key.update(np.ascontiguousarray(sample).reshape(-1).view(np.uint8).data)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key.digest(), "little")))
