"""What all parts of the reference share: the stabilizer, and sums over a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Ledger = dict[str, Values]
"""Absorbed relevance by category ("bias", "stabilizer", "constants", "zero"), each (N,)."""

STABILIZER = 1e-6


def stabilize(z: Values, epsilon: float = STABILIZER) -> Values:
    """Z moved away from zero by epsilon; zero itself counts as positive."""
    return z + np.where(z >= 0, epsilon, -epsilon)


def per_sample(x: Values) -> Values:
    """Sum over everything but the batch."""
    return flat(x).sum(axis=1)


def flat(x: Values) -> Values:
    """(N, values); the batch may be empty."""
    return x.reshape(len(x), int(np.prod(x.shape[1:])))
