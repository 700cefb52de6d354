"""Random numbers that belong to a thing, whatever was drawn before for others."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def generator(seed: int, *belongs_to: str | int) -> np.random.Generator:
    """Return the generator of what a seed and names or numbers tell, such as an item's key.

    The same seed and names give the same numbers in every run; others give independent ones.

    Raises
    ------
    ValueError
        If the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed}.")
    text = json.dumps([int(seed), *belongs_to])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], "<u8")))
